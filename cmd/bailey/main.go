// Command bailey is the server and the command line of bailey.
package main

import (
	"context"
	"os"

	"github.com/baileyhq/bailey/internal/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
