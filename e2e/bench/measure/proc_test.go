package measure

import (
	"os"
	"testing"
	"time"
)

func TestCPUOf(t *testing.T) {
	tests := []struct {
		name, stat string
		want       time.Duration
		bad        bool
	}{
		{"plain", "1 (bailey) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 0 0", 2 * time.Second, false},
		{"a name with spaces and parentheses", "1 (a) b (c) d) S 0 1 1 0 -1 4194560 1 2 3 4 1 2 0 0 20 0", 30 * time.Millisecond, false},
		{"no name", "1 S 0 1", 0, true},
		{"cut short", "1 (x) S 0 1 1", 0, true},
		{"not a number", "1 (x) S 0 1 1 0 -1 4194560 1 2 3 4 x 50 0 0 20 0", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := cpuOf([]byte(tt.stat))
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("cpuOf(%q) = %v, %v, want %v, error %v", tt.stat, got, err, tt.want, tt.bad)
			}
		})
	}
}

func TestKibOf(t *testing.T) {
	const status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nVmSwap:\tlots\n"
	if got, err := kibOf([]byte(status), "VmRSS:"); got != 1<<20 || err != nil {
		t.Errorf("VmRSS of %q = %d, %v, want %d", status, got, err, 1<<20)
	}
	for _, key := range []string{"VmSwap:", "VmNone:"} {
		if got, err := kibOf([]byte(status), key); err == nil {
			t.Errorf("%s of %q = %d, want an error: what is not there is not zero", key, status, got)
		}
	}
}

func TestOfThisProcess(t *testing.T) {
	u, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS < 1<<20 || u.Peak < u.RSS || u.Files < 3 || u.CPU < 0 {
		t.Errorf("Of(this process) = %+v, which no Go test uses", u)
	}
	if _, err := Of(1 << 30); err == nil {
		t.Error("usage of a process that cannot exist has no error")
	}
}
