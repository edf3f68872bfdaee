package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/config"
)

// imageLayoutCommand makes what was built with Docker into something that can
// be signed: Docker's own store has no manifest.
func imageLayoutCommand(s *streams) *cobra.Command {
	key := config.Default().Trust.Key
	cmd := &cobra.Command{
		Use: "layout DIR", Short: "Make a signed OCI layout of what docker save writes",
		Long: "Read what docker save writes from stdin, make an OCI layout of it in the directory DIR (NAME.oci, which must not exist), and sign it with this installation's key. " +
			"In the server's layouts folder it is in the catalogue within seconds, under NAME.",
		Example: "  docker save bailey/cuda:1 | bailey image layout /var/cache/bailey/images/cuda.oci",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if f, ok := s.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return usage("docker save IMAGE | bailey image layout "+args[0], "an image is read from stdin, and stdin is a terminal")
			}
			k, err := catalogue.EnsureKey(key)
			if err != nil {
				return err
			}
			digest, err := catalogue.WriteLayout(s.in, args[0])
			if err == nil {
				_, _, err = catalogue.SignLayout(k, args[0])
			}
			if err != nil {
				return &failure{code: exitFailure, msg: "make the layout " + args[0], hint: "pipe one image into it: docker save IMAGE | bailey image layout " + args[0], err: err}
			}
			fmt.Fprintln(s.out, digest)
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", key, "file of the private key")
	return cmd
}
