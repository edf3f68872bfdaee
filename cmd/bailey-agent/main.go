// Command bailey-agent is PID 1 of every workspace. It starts Jupyter, answers
// on the workspace's Unix socket, and serves dial and sftp over stdio.
package main

import (
	"os"

	"github.com/baileyhq/bailey/internal/agent"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func main() {
	os.Exit(agent.Main(agent.Process{
		Args: os.Args[1:], Env: os.Environ(), Version: version,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
