package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The table of docs/security/asvs.md names for every requirement the tests that
// prove it. A name that is no test proves nothing.
func TestASVSNamesTestsThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security", "asvs.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	for _, dir := range []string{"internal", "e2e", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			code, err := os.ReadFile(path)
			for _, m := range declared.FindAllSubmatch(code, -1) {
				pkg, err := filepath.Rel(root, filepath.Dir(path))
				if err != nil {
					return err
				}
				have[filepath.ToSlash(pkg)+"."+string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	rows, named := 0, 0
	for i, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| V") {
			continue
		}
		rows++
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			t.Errorf("asvs.md:%d: %d cells, want requirement, level, state and tests", i+1, len(cells)-2)
			continue
		}
		state, tests := strings.TrimSpace(cells[3]), strings.Fields(strings.ReplaceAll(cells[4], "`", ""))
		found := 0
		for _, name := range tests {
			if !strings.Contains(name, ".Test") && !strings.Contains(name, ".Fuzz") {
				continue
			}
			name = strings.TrimRight(name, ",;")
			if !have[name] {
				t.Errorf("asvs.md:%d: there is no test %s", i+1, name)
			}
			found++
		}
		named += found
		if strings.HasPrefix(state, "yes") && found == 0 {
			t.Errorf("asvs.md:%d: %q without a test", i+1, state)
		}
	}
	if rows < 40 || named < 30 {
		t.Errorf("the table has %d rows and %d tests, which is not all of it", rows, named)
	}
}
