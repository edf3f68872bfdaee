package catalogue

import (
	_ "embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/baileyhq/bailey"
)

//go:embed policy.yaml
var defaultPolicy string

// DefaultPolicy returns the policy of an installation that nobody configured:
// what is built here, Jupyter's docker-stacks, and what an administrator
// vouches for. publicKey is the file of the installation's own key.
func DefaultPolicy(publicKey string) string {
	return strings.Replace(defaultPolicy, "@PUBLIC_KEY@", publicKey, 1)
}

// EnsurePolicy writes the default policy to path if no file is there.
func EnsurePolicy(path, publicKey string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil { //nolint:gosec // what it says is no secret
		err = place(path, []byte(DefaultPolicy(publicKey)), 0o644)
	}
	if err != nil {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the image policy cannot be made at " + path,
			Hint: "run as root, or name another place with trust.policy in the configuration", Cause: err,
		}
	}
	return nil
}
