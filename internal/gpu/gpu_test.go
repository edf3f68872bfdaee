package gpu_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/gpu"
)

const (
	first  = "GPU-0a1b2c3d-0000-1111-2222-333344445555"
	second = "GPU-9f8e7d6c-0000-1111-2222-333344445556"
)

// information is what driver 580 shows of a card.
func information(uuid, minor, excluded string) string {
	return "Model: \t\t NVIDIA H200\n" +
		"IRQ:   \t\t 191\n" +
		"GPU UUID: \t " + uuid + "\n" +
		"Video BIOS: \t 96.00.a5.00.01\n" +
		"Bus Type: \t PCIe\n" +
		"DMA Size: \t 52 bits\n" +
		"DMA Mask: \t 0xfffffffffffff\n" +
		"Bus Location: \t 0000:19:00.0\n" +
		"Device Minor: \t " + minor + "\n" +
		"GPU Firmware: \t 580.95.05\n" +
		"GPU Excluded:\t " + excluded + "\n"
}

// driver writes the driver's directory as it would be in /proc: one file for
// each bus address.
func driver(t *testing.T, cards map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "driver/nvidia/gpus"), 0o755); err != nil {
		t.Fatal(err)
	}
	for bus, text := range cards {
		write(t, filepath.Join(proc, "driver/nvidia/gpus", bus, "information"), text)
	}
	return proc
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func inventory(t *testing.T, cfg gpu.Config) []bailey.GPU {
	t.Helper()
	v, err := gpu.New(cfg)
	if err != nil {
		t.Fatalf("New(%+v): %v", cfg, err)
	}
	got, err := v.Inventory(t.Context())
	if err != nil {
		t.Fatalf("Inventory with %+v: %v", cfg, err)
	}
	return got
}

func TestDriver(t *testing.T) {
	h200 := func(uuid string, index int) bailey.GPU {
		return bailey.GPU{UUID: uuid, Model: "NVIDIA H200", Index: index}
	}
	tests := []struct {
		name  string
		cards map[string]string
		want  []bailey.GPU
	}{
		{"none", nil, []bailey.GPU{}},
		{"two, by minor number rather than by bus", map[string]string{
			"0000:01:00.0": information(second, "1", "No"),
			"0000:41:00.0": information(first, "0", "No"),
		}, []bailey.GPU{h200(first, 0), h200(second, 1)}},
		{"excluded by the administrator", map[string]string{
			"0000:01:00.0": information(first, "0", "Yes"),
			"0000:41:00.0": information(second, "1", "No"),
		}, []bailey.GPU{h200(second, 1)}},
		{"not initialised", map[string]string{
			"0000:01:00.0": information("GPU-????????-????-????-????-????????????", "0", "No"),
		}, []bailey.GPU{}},
		{"the same card twice", map[string]string{
			"0000:01:00.0": information(first, "0", "No"),
			"0000:02:00.0": information(first, "0", "No"),
		}, []bailey.GPU{h200(first, 0)}},
		{"a UUID that would say more", map[string]string{
			"0000:01:00.0": information(first+",all", "0", "No"),
			"0000:02:00.0": information("all", "1", "No"),
			"0000:03:00.0": information(strings.ToUpper(first), "2", "No"),
		}, []bailey.GPU{}},
		{"no minor number", map[string]string{
			"0000:01:00.0": information(first, "-1", "No"),
			"0000:02:00.0": information(second, "", "No"),
		}, []bailey.GPU{}},
		{"garbage", map[string]string{"0000:01:00.0": "\x00\xff:\n::\n" + strings.Repeat("A", 1<<17)}, []bailey.GPU{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := inventory(t, gpu.Config{Mode: gpu.Auto, ProcRoot: driver(t, tt.cards)})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("cards (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoDriverNoCards(t *testing.T) {
	if got := inventory(t, gpu.Config{ProcRoot: t.TempDir()}); len(got) != 0 {
		t.Errorf("without a driver there are %v, want none", got)
	}
}

// TestSlicedCardIsNotLeasedWhole: whoever is given the UUID of a card in MIG
// mode gets one of its slices, perhaps one that somebody has.
func TestSlicedCardIsNotLeasedWhole(t *testing.T) {
	proc := driver(t, map[string]string{
		"0000:01:00.0": information(first, "0", "No"),
		"0000:02:00.0": information(second, "1", "No"),
	})
	write(t, filepath.Join(proc, "driver/nvidia/capabilities/gpu0/mig/gi1/access"), "DeviceFileMinor: 12\n")
	if err := os.MkdirAll(filepath.Join(proc, "driver/nvidia/capabilities/gpu1/mig"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := inventory(t, gpu.Config{Mode: gpu.Auto, ProcRoot: proc})
	if len(got) != 1 || got[0].UUID != second {
		t.Errorf("cards = %v, want only %s: the other is sliced", got, second)
	}
}

func TestUnreadableDriverIsAnError(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "driver/nvidia/gpus"), "a file where a directory should be")
	v, err := gpu.New(gpu.Config{ProcRoot: proc})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Inventory(t.Context()); err == nil {
		t.Errorf("Inventory = %v without an error, want one: no cards and not knowing are different", got)
	}
}

func TestListIsAsConfigured(t *testing.T) {
	list := []bailey.GPU{{UUID: second, Index: 1}, {UUID: first}, {UUID: second, Index: 7}}
	got := inventory(t, gpu.Config{Mode: gpu.List, Devices: list, ProcRoot: t.TempDir()})
	if diff := cmp.Diff([]bailey.GPU{{UUID: second, Index: 1}, {UUID: first}}, got); diff != "" {
		t.Errorf("cards (-want +got):\n%s", diff)
	}
	got[0].UUID = "changed by the caller"
	if list[0].UUID != second {
		t.Error("the answer shares memory with the configuration")
	}
	if got := inventory(t, gpu.Config{Mode: gpu.None, ProcRoot: driver(t, map[string]string{"a": information(first, "0", "No")})}); len(got) != 0 {
		t.Errorf("mode none has %v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name string
		cfg  gpu.Config
		want string
	}{
		{"no such mode", gpu.Config{Mode: "nvml"}, `"nvml"`},
		{"not a UUID", gpu.Config{Mode: gpu.List, Devices: []bailey.GPU{{UUID: first}, {UUID: "0"}}}, "device 1"},
		{"devices without list", gpu.Config{Mode: gpu.Auto, Devices: []bailey.GPU{{UUID: first}}}, "auto"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := gpu.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New(%+v) = %v, want an error with %s", tt.cfg, err, tt.want)
			}
		})
	}
}

func TestLooksEveryTenSeconds(t *testing.T) {
	proc := driver(t, map[string]string{"0000:01:00.0": information(first, "0", "No")})
	synctest.Test(t, func(t *testing.T) {
		v, err := gpu.New(gpu.Config{ProcRoot: proc})
		if err != nil {
			t.Fatal(err)
		}
		count := func() int {
			got, err := v.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(got)
		}
		var crowd sync.WaitGroup
		for range 20 {
			crowd.Go(func() { _ = count() })
		}
		crowd.Wait()
		write(t, filepath.Join(proc, "driver/nvidia/gpus/0000:02:00.0/information"), information(second, "1", "No"))
		if n := count(); n != 1 {
			t.Errorf("within 10 s: %d cards, want the 1 of before", n)
		}
		time.Sleep(10 * time.Second)
		if n := count(); n != 2 {
			t.Errorf("after 10 s: %d cards, want 2", n)
		}
	})
}

func FuzzInformation(f *testing.F) {
	f.Add(information(first, "0", "No"))
	f.Add(information(first, "65536", "no"))
	f.Add("GPU UUID:" + first + "\nDevice Minor:3")
	f.Add("Model: \x1b[31m\xff\u202e\nGPU UUID: " + first + "\nDevice Minor: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		proc := driver(t, map[string]string{"0000:01:00.0": text})
		for _, card := range inventory(t, gpu.Config{ProcRoot: proc}) {
			if _, err := gpu.New(gpu.Config{Mode: gpu.List, Devices: []bailey.GPU{card}}); err != nil {
				t.Errorf("from %q came %+v, which the list would refuse: %v", text, card, err)
			}
			if strings.ContainsFunc(card.Model, func(r rune) bool { return r < ' ' || r == 0x7f }) || card.Index < 0 {
				t.Errorf("from %q came %+v", text, card)
			}
		}
	})
}
