package main

import "testing"

func TestJupyterAddr(t *testing.T) {
	asJupyter := []string{"-P", "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=8888", "--ServerApp.port_retries=0", "--ServerApp.base_url=/"}
	if network, addr, ok := jupyterAddr(asJupyter); network != "tcp" || addr != "127.0.0.1:8888" || !ok {
		t.Errorf("jupyterAddr(%q) = %q, %q, %v", asJupyter, network, addr, ok)
	}
	for _, args := range [][]string{nil, {"-c", "import sys"}, {"-network", "unix", "-addr", "/x"}, {"--ServerApp.ip=127.0.0.1"}} {
		if _, addr, ok := jupyterAddr(args); ok {
			t.Errorf("jupyterAddr(%q) = %q, want none", args, addr)
		}
	}
	// What else a workspace does with its python3 must end well and at once.
	if err := run([]string{"-c", "import torch"}); err != nil {
		t.Errorf("run as python3 -c: %v", err)
	}
}
