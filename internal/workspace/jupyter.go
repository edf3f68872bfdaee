package workspace

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/baileyhq/bailey/internal/engine"
)

// JupyterAddr is where Jupyter listens inside every workspace.
const JupyterAddr = engine.JupyterAddr

const (
	maxAnswer  = 1 << 20         // of a body; what answers is hostile
	maxHeaders = 64 << 10        // and of everything before it
	askTime    = 5 * time.Second // for one question
	maxKernels = 10_000          // that are looked at
)

// ask sends one GET to the run's Jupyter over a connection of its own and
// returns status and body. connected tells whether the agent answered at all.
// What comes back was made by the tenant: it is bounded in size and time, and
// the caller believes nothing of it.
func (k *keeper) ask(ctx context.Context, path string) (status int, body []byte, connected bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := k.s.cfg.Engine.Dial(ctx, k.run.ID, k.run.UID, "tcp", JupyterAddr)
	if err != nil {
		return 0, nil, false, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to lose
	// Closing ends a read that waits for a Jupyter that never answers.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	status, body, err = get(ctx, conn, path, k.run.Token)
	return status, body, true, err
}

// get speaks HTTP/1.1 on a connection, once.
func get(ctx context.Context, conn net.Conn, path, token string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+JupyterAddr+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "token "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "bailey")
	req.Close = true
	if err := req.Write(conn); err != nil {
		return 0, nil, err
	}
	bounded := &io.LimitedReader{R: conn, N: maxHeaders}
	resp, err := http.ReadResponse(bufio.NewReader(bounded), req)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil, err
		}
		// The error repeats what was said, which is the tenant's text.
		return 0, nil, errors.New("what answers does not speak HTTP")
	}
	bounded.N += maxAnswer
	defer resp.Body.Close() //nolint:errcheck // the connection is closed by the caller
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	return resp.StatusCode, body, err
}

// kernelState is what Jupyter says about all its kernels together.
type kernelState struct {
	busy bool      // one of them computes
	last time.Time // when one of them was last heard of; zero: unknown
}

// kernels asks Jupyter what its kernels do.
func (k *keeper) kernels(ctx context.Context) (kernelState, error) {
	status, body, _, err := k.ask(ctx, k.basePath()+"api/kernels")
	if err != nil {
		return kernelState{}, fmt.Errorf("ask Jupyter for its kernels: %w", err)
	}
	if status != http.StatusOK {
		return kernelState{}, fmt.Errorf("ask Jupyter for its kernels: status %d", status)
	}
	return parseKernels(body)
}

// parseKernels reads Jupyter's answer to GET /api/kernels.
func parseKernels(body []byte) (kernelState, error) {
	var list []struct {
		State string `json:"execution_state"`
		Last  string `json:"last_activity"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return kernelState{}, fmt.Errorf("list of kernels: %w", err)
	}
	if len(list) > maxKernels {
		return kernelState{}, fmt.Errorf("list of kernels: %d are too many", len(list))
	}
	var st kernelState
	for _, kernel := range list {
		if kernel.State == "busy" {
			st.busy = true
		}
		if at, err := time.Parse(time.RFC3339, kernel.Last); err == nil && at.After(st.last) {
			st.last = at
		}
	}
	return st, nil
}
