package cli

import (
	"github.com/spf13/cobra"
)

func imageCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "The catalogue of images that workspaces start from",
		Long: "The catalogue of images: which digest stands behind a name, who signed it, and who approved it. A workspace starts from approved images that the image policy allows, and from nothing else.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(imageSignCommand(s))
	return cmd
}
