package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// A Flag is true or false.
type Flag bool

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *Flag) UnmarshalText(text []byte) error {
	switch string(text) {
	case "true":
		*f = true
	case "false":
		*f = false
	default:
		return &fault{quote(string(text)) + " is neither true nor false", "the field is true or false", "true"}
	}
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (f Flag) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// String returns "true" or "false".
func (f Flag) String() string { return fmt.Sprint(bool(f)) }

// Filter says what is looked for in what goes in and out of workspaces, and
// what happens to it.
type Filter struct {
	Mode          string        `yaml:"mode" enum:"off,log_only,alert,mask,block" doc:"What happens to what is found. mask: it is replaced by [REDACTED:rule]. block: the cell is interrupted, the terminal closed, the download refused. log_only and alert: it passes, is counted and audited. off: nothing is looked at. A rule's own mode comes first, except with off, log_only and alert, which no rule exceeds."`
	ScanInput     Flag          `yaml:"scan_input" doc:"Look at what people send into a workspace too: code, uploads, what they type."`
	AllowPaths    []string      `yaml:"allow_paths" example:"[/workspace/trusted/]" doc:"Folders of a workspace whose files the rules leave alone. Known secrets are found there too."`
	RuleDirs      []string      `yaml:"rule_dirs" example:"[/etc/bailey/rules]" doc:"Folders with rule files (*.toml, gitleaks' format). They come on top of the built-in rules; a rule with the same id replaces one."`
	RulesReload   Duration      `yaml:"rules_reload" doc:"Rule files are read again when they change, and in any case after this time. 10s to 168h."`
	Modes         []RuleMode    `yaml:"modes" doc:"Modes of single rules."`
	Allow         []FilterAllow `yaml:"allow" doc:"Findings that are none. All that an entry says must hold."`
	Sources       string        `yaml:"sources" enum:"placeholder,mask,block,alert" doc:"Secrets in text files that the editor opens. placeholder: a mark stands in their place and becomes the secret again when the file is saved. mask: they are masked, and the file cannot be saved from the editor. block: the file does not open. alert: it passes. In notebooks, outputs are masked and code is treated as a text file."`
	Collaboration string        `yaml:"collaboration" enum:"refuse,pass" doc:"Shared documents (jupyter-collaboration) travel as edits that cannot be masked. refuse: they do not open. pass: they do, unfiltered."`
	SampleAfter   Bytes         `yaml:"sample_after" doc:"After this much of one output, rules that begin with a common word look at one block in 16 only. Known secrets and all other rules still see every byte. 0: never."`
}

// A RuleMode is the mode of one rule.
type RuleMode struct {
	Rule string `yaml:"rule" required:"true" example:"email" doc:"The id of a rule, as bailey rules list prints it; of a registered secret it is secret:NAME."`
	Mode string `yaml:"mode" required:"true" enum:"off,log_only,alert,mask,block" doc:"As filter.mode."`
}

// A FilterAllow lets findings pass.
type FilterAllow struct {
	Rule  string `yaml:"rule" example:"generic-api-key" doc:"The id of a rule."`
	Path  string `yaml:"path" example:"/workspace/course/" doc:"A file of a workspace, or a folder with a slash at its end."`
	User  string `yaml:"user" example:"alice" doc:"A user name."`
	Sum   string `yaml:"sum" example:"0f3a…" doc:"The keyed sum of the value, as the finding in the audit journal shows it."`
	Until string `yaml:"until" example:"2027-01-31" doc:"The last day, in the server's time zone. Empty: for ever."`
}

// ClassFilter is what a class has of its own. What is left out is the filter's.
type ClassFilter struct {
	Mode       string     `yaml:"mode" default:"the filter's" example:"block" doc:"As filter.mode."`
	ScanInput  *Flag      `yaml:"scan_input" default:"the filter's" doc:"As filter.scan_input."`
	AllowPaths []string   `yaml:"allow_paths" example:"[/workspace/course/]" doc:"Added to filter.allow_paths."`
	Modes      []RuleMode `yaml:"modes" doc:"Come before filter.modes."`
}

// defaultFilter is what holds before the file speaks.
func defaultFilter() Filter {
	return Filter{
		Mode: "mask", ScanInput: true, AllowPaths: []string{"/workspace/trusted/"},
		RulesReload: Duration(time.Hour), Sources: "placeholder", Collaboration: "refuse", SampleAfter: 8 * mib,
	}
}

// FilterFor returns the filter of a class: what the class says, and f where it says
// nothing. The name of a class that is not there any more gets f.
func (c *Config) FilterFor(class string) Filter {
	f := c.Filter
	f.AllowPaths, f.Modes = slices.Clone(f.AllowPaths), slices.Clone(f.Modes)
	i := slices.IndexFunc(c.Classes, func(k Class) bool { return k.Name == class })
	if i < 0 {
		return f
	}
	own := c.Classes[i].Filter
	if own.Mode != "" {
		f.Mode = own.Mode
	}
	if own.ScanInput != nil {
		f.ScanInput = *own.ScanInput
	}
	f.AllowPaths = append(f.AllowPaths, own.AllowPaths...)
	for _, m := range own.Modes {
		f.Modes = slices.DeleteFunc(f.Modes, func(of RuleMode) bool { return of.Rule == m.Rule })
		f.Modes = append(f.Modes, m)
	}
	return f
}

// Expiry returns the moment from which a checked entry no longer holds; the
// zero time is never.
func (a FilterAllow) Expiry() time.Time {
	day, err := time.ParseInLocation(time.DateOnly, a.Until, time.Local)
	if a.Until == "" || err != nil {
		return time.Time{}
	}
	return day.AddDate(0, 0, 1)
}

var filterModes = []string{"off", "log_only", "alert", "mask", "block"}

// checkFilter checks the filter and what classes say about it.
func (d *decoder) checkFilter() {
	f := d.cfg.Filter
	d.checkAllowPaths("filter.allow_paths", f.AllowPaths)
	for i, dir := range f.RuleDirs {
		if !path.IsAbs(dir) || strings.ContainsRune(dir, 0) {
			d.wrong([]string{fmt.Sprintf("filter.rule_dirs[%d]", i)}, quote(dir)+" is not an absolute path", "the server's working directory is nobody's business", "/etc/bailey/rules")
		}
	}
	if r := f.RulesReload; r < Duration(10*time.Second) || r > Duration(168*time.Hour) {
		d.wrong([]string{"filter.rules_reload"}, r.String()+" is out of range", "files are read again after 10s to 168h", d.write("filter.rules_reload", "1h"))
	}
	if n := f.SampleAfter; n != 0 && n < mib {
		d.wrong([]string{"filter.sample_after"}, n.String()+" is out of range", "what is shorter than 1MiB is always looked at whole; 0 means never to sample", d.write("filter.sample_after", "8MiB"))
	}
	d.checkModes("filter.modes", f.Modes)
	for i, a := range f.Allow {
		d.checkAllow(fmt.Sprintf("filter.allow[%d]", i), a)
	}
	for i, c := range d.cfg.Classes {
		at := fmt.Sprintf("classes[%d].filter", i)
		if m := c.Filter.Mode; m != "" && !slices.Contains(filterModes, m) {
			d.wrong([]string{at + ".mode"}, quote(m)+" is not a mode", "the modes are "+strings.Join(filterModes, ", "), "mode: mask")
		}
		d.checkAllowPaths(at+".allow_paths", c.Filter.AllowPaths)
		d.checkModes(at+".modes", c.Filter.Modes)
	}
}

// checkAllowPaths refuses what would switch the filter off for everything.
func (d *decoder) checkAllowPaths(at string, paths []string) {
	for i, p := range paths {
		dir := strings.TrimSuffix(p, "/")
		if !strings.HasPrefix(p, "/workspace/") || !strings.HasSuffix(p, "/") || path.Clean(dir) != dir || dir == "/workspace" || strings.ContainsAny(p, "*?[") {
			d.wrong([]string{fmt.Sprintf("%s[%d]", at, i)}, quote(p)+" is not a folder below /workspace", "people's files are there; it ends in a slash, without patterns, and is not all of /workspace", "/workspace/trusted/")
		}
	}
}

func (d *decoder) checkModes(at string, modes []RuleMode) {
	seen := map[string]bool{}
	for i, m := range modes {
		item := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case m.Rule == "":
			d.wrong([]string{item}, "the entry names no rule", "an entry is a rule and its mode", "rule: email")
		case seen[m.Rule]:
			d.wrong([]string{item + ".rule"}, quote(m.Rule)+" is there already", "a rule has one mode", "another rule")
		}
		seen[m.Rule] = true
		if !slices.Contains(filterModes, m.Mode) {
			d.wrong([]string{item + ".mode", item}, quote(m.Mode)+" is not a mode", "the modes are "+strings.Join(filterModes, ", "), "mode: mask")
		}
	}
}

func (d *decoder) checkAllow(at string, a FilterAllow) {
	if a.Rule == "" && a.Path == "" && a.User == "" && a.Sum == "" {
		d.wrong([]string{at}, "the entry would allow everything", "it says at least one of rule, path, user and sum", "sum: the one that the finding shows")
	}
	if a.Path != "" && (!strings.HasPrefix(a.Path, "/workspace/") || path.Clean(a.Path) != strings.TrimSuffix(a.Path, "/")) {
		d.wrong([]string{at + ".path"}, quote(a.Path)+" is not a place below /workspace", "people's files are there", "path: /workspace/course/")
	}
	if a.User != "" {
		d.checkNameValue(at+".user", a.User)
	}
	if a.Sum != "" && (len(a.Sum) != 32 || strings.Trim(a.Sum, "0123456789abcdef") != "") {
		d.wrong([]string{at + ".sum"}, quote(a.Sum)+" is not a sum", "it is 32 digits 0-9a-f, copied from a finding", "sum: the one that the finding shows")
	}
	if a.Until != "" && a.Expiry().IsZero() {
		d.wrong([]string{at + ".until"}, quote(a.Until)+" is not a day", "a day is written YYYY-MM-DD", "until: \"2030-12-31\"")
	}
}
