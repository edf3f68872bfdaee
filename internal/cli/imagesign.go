package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/config"
)

// imageSignCommand signs what was built on this machine. It asks no server: the
// images are there before the first one runs.
func imageSignCommand(s *streams) *cobra.Command {
	key := config.Default().Trust.Key
	cmd := &cobra.Command{
		Use: "sign LAYOUT…", Short: "Sign OCI layouts that were built on this machine",
		Long: "Sign the image of each OCI layout (a directory NAME.oci) with this installation's key, and write the signature beside it as NAME.sigstore.json. " +
			"The key is made if it is missing. A layout is the same whoever signs it; one that is signed already by the key stays as it is.",
		Example: "  bailey image sign /var/cache/bailey/images/*.oci",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, layouts []string) error {
			k, err := catalogue.EnsureKey(key)
			if err != nil {
				return err
			}
			for _, layout := range layouts {
				digest, wrote, err := catalogue.SignLayout(k, layout)
				if err != nil {
					return &failure{code: exitFailure, msg: "sign " + layout, hint: "it is to be an OCI layout with one image, as make images writes it", err: err}
				}
				what := "is signed already"
				if wrote {
					what = "signed"
				}
				fmt.Fprintf(s.err, "%s %s: %s\n", filepath.Base(layout), digest, what)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", key, "file of the private key")
	return cmd
}
