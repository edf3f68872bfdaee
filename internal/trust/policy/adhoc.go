package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/baileyhq/bailey/internal/trust/root"
)

// AdHoc returns a policy without a file: one rule for every repository, met by
// any one of the authorities. It is for a person who names on the command line
// whom to trust.
func AdHoc(r *root.Root, of ...*Authority) (*Policy, error) {
	if len(of) == 0 {
		return nil, errors.New("nobody is named whose signature counts")
	}
	sum := sha256.New()
	for _, a := range of {
		if a.Root == nil {
			a.Root = r
		}
		if a.Key != nil {
			fmt.Fprintf(sum, "key %s\n", a.Key.Fingerprint)
		} else {
			fmt.Fprintf(sum, "keyless %q %q\n", a.Keyless.Issuer, a.Keyless.Identity)
		}
	}
	fmt.Fprintf(sum, "root %s\n", r.Hash)
	return &Policy{
		Name: "command line", Hash: "sha256:" + hex.EncodeToString(sum.Sum(nil)),
		Rules: []*Rule{{Name: "command-line", Match: []Pattern{"**"}, Threshold: 1, Of: of, Platforms: Index, Mode: Enforce}},
		Roots: map[string]*root.Root{r.Name: r}, Files: []string{"command line"},
	}, nil
}
