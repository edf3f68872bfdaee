package audit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

// TestMain lets the test binary be a server that writes until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_WRITE_TO"); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// writeForEver appends from several goroutines and prints the count of every
// event that was acknowledged.
func writeForEver(dir string) {
	j, err := Open(Config{Dir: dir, SegmentBytes: 50_000})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 1; ; i++ {
				e := sampleEvent(w*1_000_000 + i)
				if err := j.Append(context.Background(), e); err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				fmt.Println(e.Attrs.Count)
			}
		})
	}
	wg.Wait()
}

// TestKilledServerLosesNothing: kill -9 in the middle of writing. Everything
// that was acknowledged is there, the chain is whole, and the next start, with
// no repair by hand, goes on.
func TestKilledServerLosesNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	acked := map[int64]bool{}
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = []string{"AUDIT_TEST_WRITE_TO=" + dir}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			count, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: the writer said %q", round, lines.Text())
			}
			acked[int64(round)*10_000_000+count] = true
			if n == 300 {
				_ = cmd.Process.Kill() // and read on: what is in the pipe was acknowledged
			}
		}
		_ = cmd.Wait()
	}
	j := mustOpen(t, Config{Dir: dir})
	events, round, boot := all(t, j), int64(-1), ""
	for _, e := range events {
		if e.Boot != boot {
			boot = e.Boot
			round++
		}
		delete(acked, round*10_000_000+e.Attrs.Count)
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged events of %d rounds are not in the journal of %d", len(acked), round+1, len(events))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK || r.Segments < 3 {
		t.Errorf("Verify = %+v, want a good journal of several segments", r)
	}
}
