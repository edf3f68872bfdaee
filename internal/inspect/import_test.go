package inspect_test

import (
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect"
)

func TestImportTellsWhatItLeavesOut(t *testing.T) {
	out, notes, err := inspect.Import("their.toml", []byte(`
title = "theirs"
minTheirVersion = "1"
[[rules]]
id = "a-key"
regex = '''ak_[a-z0-9]{20}'''
keywords = ["ak_"]
filter = '''entropy(finding["secret"]) <= 3.25'''
validate = "http"
[[rules]]
id = "b-key"
regex = '''bk_[a-z0-9]{20}'''
filter = '''filter.entropy(finding["secret"]) < 3.0 || filter.tokenRatio(finding["secret"]) > 2'''
[[rules.components]]
id = "a-key"
`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := inspect.Compile(inspect.Config{NoDefaults: true, Files: []inspect.File{{Name: "out.toml", Data: out}}})
	if err != nil {
		t.Fatalf("what Import returned does not compile: %v\n%s", err, out)
	}
	rules := set.Rules()
	if len(rules) != 2 || rules[0].Entropy != 3.25 || rules[1].Entropy != 3 {
		t.Errorf("rules = %+v; want entropies 3.25 and 3", rules)
	}
	told := strings.Join(notes, "\n")
	for _, want := range []string{`"minTheirVersion" is left out, of the file`, `"validate" is left out, of a-key`, `"components" is left out, of b-key`, `"filter" is left out, of b-key`} {
		if !strings.Contains(told, want) {
			t.Errorf("notes do not say %s:\n%s", want, told)
		}
	}
	if strings.Contains(told, `"filter" is left out, of a-key`) {
		t.Errorf("the filter of a-key was translated whole, and is told as left out:\n%s", told)
	}
}

func TestImportRefusesWhatCannotWork(t *testing.T) {
	for name, text := range map[string]string{
		"no TOML":    "[[",
		"no rules":   `title = "x"`,
		"look-ahead": "[[rules]]\nid = \"a\"\nregex = '''(?=x)'''",
		"strange":    "rules = [1]",
	} {
		if _, _, err := inspect.Import("x.toml", []byte(text)); err == nil {
			t.Errorf("%s: Import succeeds", name)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("[[rules]]\nid = \"a\"\nregex = \"x\"\n"))
	f.Add([]byte("rules = [{}]"))
	f.Add([]byte("[extend]\nuseDefault = true"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, _, err := inspect.Import("x.toml", data)
		if err != nil {
			return
		}
		if _, err := inspect.Compile(inspect.Config{NoDefaults: true, Files: []inspect.File{{Name: "x.toml", Data: out}}}); err != nil {
			t.Errorf("Import(%q) returned what does not compile: %v", data, err)
		}
	})
}
