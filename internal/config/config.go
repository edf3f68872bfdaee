// Package config turns one YAML file, the environment and the command line into
// one checked [Config], and remembers where every value came from. It is strict:
// what it does not understand is refused, all problems at once, each with the
// place and what to write instead. It decides nothing that the values do not
// say, and it is the only room that reads the environment.
package config

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge/peer"
)

// DefaultPath is where the configuration lies when nobody names another place.
const DefaultPath = "/etc/bailey/bailey.yaml"

// DefaultPolicy is where the image policy lies when nobody names another place.
const DefaultPolicy = "/etc/bailey/trust/policy.yaml"

// A Source says where a configuration comes from. Later sources win: built-in
// defaults, the file, the environment, the flags.
type Source struct {
	// Path is the file. Empty means $BAILEY_CONFIG, if Env has it, else
	// [DefaultPath].
	Path string
	// Required makes a missing file an error. A file named by a person (Path
	// from a flag, or BAILEY_CONFIG) should be required; a missing default
	// file means defaults.
	Required bool
	// Env is the environment as os.Environ gives it; nil means none.
	Env []string
	// Flags are values from the command line by path: "listen.https", "state".
	Flags map[string]string
}

// A Config is the checked configuration. It is not changed after [Load] has
// returned it, so it may be read concurrently.
//
// In the tags, doc is the text of docs/configuration.md and of the schema, and
// reload:"live" marks what takes effect without a restart.
type Config struct {
	Listen   Listen           `yaml:"listen" doc:"Where the server listens."`
	State    string           `yaml:"state" flag:"state" example:"/var/lib/bailey" doc:"Directory of everything the server keeps: database, journal, keys. An absolute path; one server per directory."`
	Database string           `yaml:"database" example:"env:DATABASE_URL" doc:"Empty: SQLite in the state directory. Else PostgreSQL: env:NAME or file:/path for a URL with a password, or a postgres:// URL without one. A password in this file is refused."`
	Web      Web              `yaml:"origin" doc:"The addresses that browsers use. The console and a workspace share no origin but in mode path."`
	Proxies  Proxies          `yaml:"proxies" doc:"Reverse proxies and load balancers in front of the server. Nobody's word is taken who is not listed here."`
	TLS      TLS              `yaml:"tls" doc:"A certificate of your own. Without one the server makes its own CA and shows the fingerprint."`
	Docker   Docker           `yaml:"docker" doc:"The Docker Engine that runs workspaces."`
	Log      Log              `yaml:"log" doc:"What the server writes to stderr."`
	Sessions Sessions         `yaml:"sessions" doc:"How long a sign-in lasts."`
	Images   map[string]Image `yaml:"images" reload:"live" doc:"Catalogue names pinned to a digest. A name that is not listed here means the image that was built or loaded under that name."`
	Classes  []Class          `yaml:"classes" reload:"live" doc:"Recipes for workspaces, in the order people see them. Empty: made from the images found, sized to the machine."`
	Quotas   Quotas           `yaml:"quotas" reload:"live" doc:"What may run at once. Administrators have quotas too."`
	Trust    Trust            `yaml:"trust" doc:"Which images may start. An image that nobody trusted has signed starts for nobody."`
	GPUs     GPUs             `yaml:"gpus" doc:"The GPUs that may be leased, each to one workspace at a time."`
	SignIn   SignIn           `yaml:"sign_in" doc:"Company accounts: identity providers and directories. Local accounts go on working."`
	Egress   Egress           `yaml:"egress" reload:"live" doc:"What workspaces of network mode proxied may reach. A change holds at once, also for connections that are open."`

	Passwords Passwords `yaml:"passwords" reload:"live" doc:"What local passwords have to be, and how they are kept."`
	Factors   Factors   `yaml:"factors" reload:"live" doc:"Who must have a second factor, and when it is asked for again. Everybody may have one."`

	Access     Access     `yaml:"access" reload:"live" doc:"From where people may come. A list holds for the person, at every door and for every session and token, from the moment it is saved. Token lists are made with the tokens."`
	SSH        SSH        `yaml:"ssh" reload:"live" doc:"What people may do over SSH. It holds for what is opened from then on."`
	Recordings Recordings `yaml:"recordings" doc:"What is kept of SSH sessions, sealed, in the state directory. Which classes are recorded stands with the classes."`

	Filter Filter `yaml:"filter" reload:"live" doc:"What is looked for in everything that goes in and out of a workspace."`

	origins map[string]Origin
	lookup  func(name string) (string, bool) // environment, for env: references
	file    string                           // path of the file, also when it is missing
	seen    look                             // what the file was when it was read
}

// Listen is where the server listens.
type Listen struct {
	HTTPS   string `yaml:"https" flag:"https" example:"0.0.0.0:8443" doc:"Address and port of the console, the API and the workspaces."`
	HTTP    string `yaml:"http" example:"0.0.0.0:80" doc:"Address and port of plain HTTP, which sends browsers on to HTTPS and answers an ACME authority. Nothing is served there. Empty: there is none."`
	Metrics string `yaml:"metrics" flag:"metrics" example:"127.0.0.1:9443" doc:"Address and port of metrics and health. It asks nobody to sign in: keep it off public networks."`
	SSH     string `yaml:"ssh" flag:"ssh" example:"0.0.0.0:2222" doc:"Address and port of SSH into workspaces. Empty: there is none."`
}

// Web says which addresses browsers use (origin in the file).
type Web struct {
	Mode       string    `yaml:"mode" enum:"localhost,subdomain,port,path" doc:"localhost: workspaces are NAME.localhost, for one machine. subdomain: workspaces are NAME.DOMAIN, needs a wildcard DNS record. port: one port per workspace, for an address without DNS. path: workspaces are HOST/w/NAME, on the console's own origin; needs trust: semi-trusted."`
	Host       string    `yaml:"host" example:"hub.example.org" doc:"Host name (in port and path mode also an IP address) of the console, without scheme and port."`
	Domain     string    `yaml:"domain" example:"apps.example.net" doc:"In subdomain mode: the domain of the workspaces. Never the console's own host; best a separate registered domain."`
	Ports      PortRange `yaml:"ports" doc:"In port mode: first and last port for workspaces."`
	Trust      string    `yaml:"trust" enum:"none,semi-trusted" doc:"none: whatever runs in a workspace is kept apart. semi-trusted: the people here trust one another's code. Mode path needs it said: there browsers do not keep workspaces and the console apart. What bailey does in their place, and what nobody can, is in docs/edge.md."`
	PublicPort int       `yaml:"public_port" doc:"The port that browsers use when something in front forwards it; 0: the port of listen.https."`
}

// TLS names a certificate and its key.
type TLS struct {
	Cert string `yaml:"cert" example:"/etc/bailey/tls.crt" doc:"PEM file with the certificate and its chain. An absolute path."`
	Key  string `yaml:"key" example:"/etc/bailey/tls.key" doc:"PEM file with the private key. An absolute path, readable by the server alone."`
	ACME ACME   `yaml:"acme" doc:"An authority that gives certificates by the ACME protocol, Let's Encrypt for instance. Needs public DNS names: origin.mode subdomain, or port or path with a name."`
}

// Docker says which Docker Engine runs workspaces.
type Docker struct {
	Host string `yaml:"host" flag:"docker-host" example:"unix:///var/run/docker.sock" doc:"The engine's Unix socket. TCP is refused: whoever reaches such a port owns the machine."`
}

// Log says how much the server writes, and how.
type Log struct {
	Level  string `yaml:"level" flag:"log-level" enum:"debug,info,warn,error" doc:"Least urgent messages that are written."`
	Format string `yaml:"format" flag:"log-format" enum:"text,json" doc:"One line of text or one JSON object per message."`
}

// Sessions says how long a sign-in lasts.
type Sessions struct {
	Idle     Duration `yaml:"idle" doc:"A browser session ends after this time without a request. 5m to 720h."`
	Lifetime Duration `yaml:"lifetime" doc:"A browser session ends after this time in any case. At least idle, at most 720h."`
}

// An Image is the digest of a container image: "sha256:" and 64 hex digits.
type Image string

// A Class is one recipe for workspaces.
type Class struct {
	Name        string      `yaml:"name" required:"true" example:"pytorch" doc:"What people type: 1 to 30 of a-z, 0-9 and single dashes, beginning with a letter."`
	Title       string      `yaml:"title" default:"the name" example:"PyTorch" doc:"What people read. At most 80 characters."`
	Description string      `yaml:"description" example:"PyTorch 2 and JupyterLab 4" doc:"One or two sentences under the title. At most 500 characters."`
	Image       string      `yaml:"image" required:"true" example:"pytorch" doc:"A catalogue name or a digest (sha256:…). Never a tag: a tag can change behind your back."`
	CPUs        CPUs        `yaml:"cpus" default:"2" doc:"Cores; 0.5 is half a core. 0.1 to 1024."`
	Memory      Bytes       `yaml:"memory" default:"8GiB" doc:"Memory, without swap on top. At least 256MiB."`
	Shm         Bytes       `yaml:"shm" default:"half of memory, at most 32GiB" doc:"Size of /dev/shm, which PyTorch's data loaders use. Counts against memory. At least 16MiB."`
	Tmp         Bytes       `yaml:"tmp" default:"an eighth of memory, at most 2GiB" doc:"Size of /tmp. Counts against memory. At least 16MiB."`
	Pids        int         `yaml:"pids" default:"4096" doc:"Processes and threads together. 256 to 1048576."`
	GPUs        int         `yaml:"gpus" default:"0" doc:"GPUs leased to each workspace, alone. 0 to 64."`
	IdleStop    Duration    `yaml:"idle_stop" default:"2h" doc:"Stop after this time without a busy kernel, a key typed or a request by a person; files stay. 0: never. At least 1m."`
	StartLimit  Duration    `yaml:"start_limit" default:"60s" doc:"How long a start may take until Jupyter answers, the image being there. 5s to 1h."`
	SelfCheck   string      `yaml:"self_check" enum:"cuda,torch,python,none" default:"cuda with GPUs, else python" doc:"What is tried right after a start, the result being shown. cuda: PyTorch sees every leased GPU. torch: PyTorch loads. python: Python runs."`
	Groups      []string    `yaml:"groups" example:"[vision]" doc:"Groups whose members may use the class. Empty: everyone."`
	Filter      ClassFilter `yaml:"filter" doc:"What the class has in place of the filter's own settings."`
	AuditCells  Flag        `yaml:"audit_cells" default:"true" doc:"Each cell that is run stands in the audit journal: who, when, how long, how large, and a keyed hash of the code by which equal code is equal. Never the code."`
	SSH         ClassSSH    `yaml:"ssh" doc:"What the class has in place of the ssh section."`
	Network     string      `yaml:"network" enum:"none,proxied,bridge" default:"none, or proxied with egress" doc:"none: no interface but loopback. proxied: none either, and connections that the server makes for the workspace, each one checked. bridge: an interface on a bridge of the host, from which the host and its network can be reached; for hosts where that is wanted."`
	Egress      string      `yaml:"egress" default:"none, with network proxied" example:"ml" doc:"With network proxied: what may be reached. none: nothing until it was asked for and allowed. ml: package indexes, conda, model hubs and code hosts. mirror-only: the mirrors below egress.mirrors and nothing else. Or a name from egress.policies."`
}

// Quotas bound what may run at once.
type Quotas struct {
	Default Quota            `yaml:"default" doc:"For each user who has no entry of their own."`
	Users   map[string]Quota `yaml:"users" doc:"By user name. A limit that is left out is the default's."`
	Groups  map[string]Quota `yaml:"groups" doc:"By group name, for all its members together, on top of each member's own. A limit that is left out is none."`
}

// A Quota is a set of limits. Nil means that the file is silent; 0 means no limit.
type Quota struct {
	Workspaces *int   `yaml:"workspaces" doc:"Workspaces running at once. 0: no limit."`
	CPUs       *CPUs  `yaml:"cpus" doc:"Cores of all running workspaces together. 0: no limit."`
	Memory     *Bytes `yaml:"memory" doc:"Memory of all running workspaces together. 0: no limit."`
	GPUs       *int   `yaml:"gpus" doc:"GPUs leased at once. 0: no limit."`
}

// Trust says whose images may start.
type Trust struct {
	Policy      string `yaml:"policy" doc:"File that says whose signatures count, for which images; docs/image-trust.md describes it. Made with sensible rules if it is missing. It is read again when it changes: a key taken out of it counts within a second."`
	Key         string `yaml:"key" doc:"File of the private key that signs what is built on this machine and what administrators vouch for. Made, with the public half beside it, if it is missing. Readable by the server alone."`
	Credentials string `yaml:"credentials" example:"/etc/bailey/trust/registries.json" doc:"File with sign-ins to private registries, as docker login writes it (config.json, without helpers). Read at every use; readable by the server alone. Empty: every registry is asked as a stranger."`
	Layouts     string `yaml:"layouts" doc:"Directory with images that were built on this machine: OCI layouts NAME.oci, each with its signature NAME.sigstore.json. Empty: none."`
}

// GPUs says where the list of cards comes from.
type GPUs struct {
	Source  string   `yaml:"source" enum:"auto,list,none" doc:"auto: ask the driver. list: the devices below and no others. none: no GPU is ever leased."`
	Devices []Device `yaml:"devices" doc:"With source list: the cards that may be leased."`
}

// A Device is one GPU.
type Device struct {
	UUID  string `yaml:"uuid" required:"true" example:"GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11" doc:"As nvidia-smi -L prints it: GPU-… or, for a slice of a card, MIG-…."`
	Model string `yaml:"model" example:"H200" doc:"What people read. At most 80 characters."`
}

// Default returns the configuration of a server that nobody configured.
func Default() *Config {
	return &Config{
		Listen:   Listen{HTTPS: "127.0.0.1:8443", Metrics: "127.0.0.1:9443"},
		State:    "/var/lib/bailey",
		Web:      Web{Mode: "localhost", Host: "localhost", Trust: "none", Ports: PortRange{8500, 8599}},
		Proxies:  Proxies{Header: peer.XForwardedFor},
		Docker:   Docker{Host: "unix:///var/run/docker.sock"},
		Log:      Log{Level: "info", Format: "text"},
		Sessions: Sessions{Idle: Duration(8 * time.Hour), Lifetime: Duration(24 * time.Hour)},

		Passwords: Passwords{Length: 10, Memory: 19 * mib, Passes: 2, Threads: 1},
		Factors:   Factors{StepUp: Duration(10 * time.Minute)},

		Quotas: Quotas{Default: Quota{
			Workspaces: new(3), CPUs: new(CPUs(8000)), Memory: new(32 * gib), GPUs: new(1),
		}},
		Trust:  Trust{Policy: DefaultPolicy, Key: "/etc/bailey/trust/images.key", Layouts: "/var/cache/bailey/images"},
		GPUs:   GPUs{Source: "auto"},
		SSH:    defaultSSH(),
		Filter: defaultFilter(),
		Egress: defaultEgress(),

		Recordings: defaultRecordings(),
		SignIn:     defaultSignIn(),

		origins: map[string]Origin{},
		lookup:  func(string) (string, bool) { return "", false },
		file:    DefaultPath,
	}
}

// defaultClass is what a class is before the file speaks. Shm, Tmp, Title and
// SelfCheck depend on the rest and are set by [Class.complete].
func defaultClass() Class {
	return Class{
		CPUs: 2000, Memory: 8 * gib, Pids: 4096,
		IdleStop: Duration(2 * time.Hour), StartLimit: Duration(time.Minute), AuditCells: true,
	}
}

// complete fills in what the file left out and what depends on other fields.
// given reports whether a field was given by name.
func (c *Class) complete(given func(field string) bool) {
	if !given("title") {
		c.Title = c.Name
	}
	if !given("shm") {
		c.Shm = min(c.Memory/2, 32*gib)
	}
	if !given("tmp") {
		c.Tmp = min(c.Memory/8, 2*gib)
	}
	c.reach(given)
	if !given("self_check") {
		c.SelfCheck = "python"
		if c.GPUs > 0 {
			c.SelfCheck = "cuda"
		}
	}
}

// Load reads, overlays and checks. When something is wrong it returns *[Errors]
// with every problem that could be found, or the context's error.
func Load(ctx context.Context, src Source) (*Config, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	path, required := src.file()
	seen := lookAt(path)
	switch {
	case seen.err != nil:
		return nil, &Errors{File: path, Problems: []Problem{*seen.err}}
	case seen.missing && required:
		return nil, &Errors{File: path, Problems: []Problem{missing(path)}}
	}
	return load(src, path, seen)
}

// load is Load on what a look at the file has shown.
func load(src Source, path string, seen look) (*Config, error) {
	c := Default()
	c.file, c.seen = path, seen
	c.seen.data = nil
	env := parseEnv(src.Env)
	c.lookup = func(name string) (string, bool) { v, ok := env[name]; return v, ok }

	d := &decoder{doc: newDocument(path, seen.data), cfg: c, bad: map[string]bool{}}
	d.file()
	d.environment(env)
	d.flags(src.Flags)
	for i := range c.Classes {
		at := fmt.Sprintf("classes[%d].", i)
		c.Classes[i].complete(func(field string) bool { return d.given(at+field) || d.bad[at+field] })
	}
	c.SignIn.complete()
	d.check()
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			last := func(p Problem) int { return cmp.Or(p.Line, math.MaxInt) } // what is not in the file comes after it
			return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a.Column, b.Column))
		})
		return nil, &Errors{File: path, Problems: d.problems}
	}
	return c, nil
}

// file returns the path to read and whether it must exist.
func (s Source) file() (path string, required bool) {
	if s.Path != "" {
		return s.Path, s.Required
	}
	if p := parseEnv(s.Env)["BAILEY_CONFIG"]; p != "" {
		return p, true
	}
	return DefaultPath, s.Required
}

// File returns the path of the configuration file, whether or not it exists.
func (c *Config) File() string { return c.file }

// Data is the part of the configuration that may change while the server runs.
type Data struct {
	Classes []bailey.Class          // in the order of the file; Digest is set only where the file has a digest
	Images  map[string]string       // catalogue name to pinned digest
	Default bailey.Quota            // for users without an entry
	Users   map[string]bailey.Quota // complete: what an entry leaves out is the default's
	Groups  map[string]bailey.Quota
}

// Data returns the part of the configuration that may change while the server
// runs, as a copy of its own.
func (c *Config) Data() Data {
	d := Data{
		Images:  map[string]string{},
		Default: c.Quotas.Default.over(bailey.Quota{}),
		Users:   map[string]bailey.Quota{},
		Groups:  map[string]bailey.Quota{},
	}
	for name, digest := range c.Images {
		d.Images[name] = string(digest)
	}
	for _, class := range c.Classes {
		out := class.bailey()
		out.Reach = c.Egress.reach(class)
		out.Env = c.Egress.env(class)
		if strings.HasPrefix(out.Image, "sha256:") {
			out.Digest = out.Image
		} else {
			out.Digest = d.Images[out.Image]
		}
		d.Classes = append(d.Classes, out)
	}
	for name, q := range c.Quotas.Users {
		d.Users[name] = q.over(d.Default)
	}
	for name, q := range c.Quotas.Groups {
		d.Groups[name] = q.over(bailey.Quota{})
	}
	return d
}

// over returns q with base where q is silent.
func (q Quota) over(base bailey.Quota) bailey.Quota {
	if q.Workspaces != nil {
		base.Workspaces = *q.Workspaces
	}
	if q.CPUs != nil {
		base.CPUMillis = int64(*q.CPUs)
	}
	if q.Memory != nil {
		base.MemoryBytes = int64(*q.Memory)
	}
	if q.GPUs != nil {
		base.GPUs = *q.GPUs
	}
	return base
}

// bailey returns the class as the rest of the house knows it.
func (c Class) bailey() bailey.Class {
	return bailey.Class{
		Name: c.Name, Title: c.Title, Description: c.Description, Image: c.Image,
		CPUMillis: int64(c.CPUs), MemoryBytes: int64(c.Memory),
		ShmBytes: int64(c.Shm), TmpBytes: int64(c.Tmp),
		Pids: int64(c.Pids), GPUs: c.GPUs,
		IdleStop: time.Duration(c.IdleStop), StartLimit: time.Duration(c.StartLimit),
		SelfCheck: c.SelfCheck, Groups: slices.Clone(c.Groups),
		Network: c.Network, Egress: c.Egress,
	}
}

// AuditCells reports whether cells that are run in workspaces of a class stand
// in the journal. The name of a class that is not there any more: yes.
func (c *Config) AuditCells(class string) bool {
	i := slices.IndexFunc(c.Classes, func(k Class) bool { return k.Name == class })
	return i < 0 || bool(c.Classes[i].AuditCells)
}
