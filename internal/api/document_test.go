package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/baileyhq/bailey/internal/api"
)

var update = flag.Bool("update", false, "write api/openapi.json")

// The committed document is what the code says: the client is generated from
// it, and people read it.
func TestTheCommittedDocumentIsTheCodes(t *testing.T) {
	b, err := api.New(api.Config{}).Document()
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	path := filepath.Join("..", "..", "api", "openapi.json")
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, pretty.Bytes()) {
		t.Errorf("%s differs from the code; run make generate", path)
	}
}
