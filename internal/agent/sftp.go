package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// sftp serves SFTP on stdin and stdout, with the tenant's rights.
func (p Process) sftp(args []string) int {
	flags := flag.NewFlagSet("sftp", flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	here, err := os.Getwd()
	if err != nil {
		here = "/"
	}
	dir := flags.String("dir", here, "`directory` that relative paths start from")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return exitUsage
	}
	err = os.Chdir(*dir)
	if err == nil {
		err = serveSFTP(p.Stdin, p.Stdout)
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "bailey-agent: sftp: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// serveSFTP serves until the client ends its stream. Relative paths start from
// the process's own directory: told of another one, the library would put it
// before the target of a relative symbolic link as well, and the link would
// lead elsewhere than the client said.
func serveSFTP(in io.Reader, out io.WriteCloser) error {
	srv, err := sftp.NewServer(stdio{in, out})
	if err != nil {
		return err
	}
	err = srv.Serve()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, srv.Close())
}

// stdio is two streams as one.
type stdio struct {
	io.Reader
	io.WriteCloser
}
