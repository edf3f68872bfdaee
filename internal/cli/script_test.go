package cli_test

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/baileyhq/bailey/internal/cli"
)

// TestMain gives the stories the command bailey, in this process's binary.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"bailey": func() {
			os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("BAILEY_PROFILE", e.WorkDir+"/profile.json")
			return plantTokens(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// exits CODE COMMAND… wants just that exit code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE COMMAND…")
				}
				got := "0"
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					got = exitCode(err)
				}
				if got != args[0] {
					ts.Fatalf("%v exited %s, want %s", args[1:], got, args[0])
				}
			},
		},
	})
}
