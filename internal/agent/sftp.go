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
	if err := serveSFTP(p.Stdin, p.Stdout, *dir); err != nil {
		fmt.Fprintf(p.Stderr, "bailey-agent: sftp: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// serveSFTP serves until the client ends its stream.
func serveSFTP(in io.Reader, out io.WriteCloser, dir string) error {
	if fi, err := os.Stat(dir); err != nil {
		return err
	} else if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	srv, err := sftp.NewServer(stdio{in, out}, sftp.WithServerWorkingDirectory(dir))
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
