package docker

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/engine"
)

const boxID = "4b3a110431045638a7bd4ac381904bf2a49cd2b2434183ed3d38eeec960e9cd0"

func TestFindCgroups(t *testing.T) {
	const (
		v1Mounts = "30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n" +
			"31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n" +
			"32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		v2Mounts = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	tests := []struct {
		name, own, mounts string
		want              string
		ok                bool
	}{
		{
			"v1", "5:memory:/docker/" + boxID + "\n4:cpu,cpuacct:/docker/" + boxID + "\n0::/docker/" + boxID + "\n", v1Mounts,
			"map[cpu:/sys/fs/cgroup/cpu,cpuacct/docker/" + boxID + " cpuacct:/sys/fs/cgroup/cpu,cpuacct/docker/" + boxID + " memory:/sys/fs/cgroup/memory/docker/" + boxID + "]", true,
		},
		{"v2 of systemd", "0::/system.slice/docker-" + boxID + ".scope\n", v2Mounts, "/sys/fs/cgroup/system.slice/docker-" + boxID + ".scope", true},
		{"v2 of cgroupfs", "0::/docker/" + boxID + "\n", v2Mounts, "/sys/fs/cgroup/docker/" + boxID, true},
		{"somebody else's on v1", "5:memory:/docker/ffff\n", v1Mounts, "", false},
		{"somebody else's on v2", "0::/docker/ffff\n", v2Mounts, "", false},
		{"the root", "0::/\n", v2Mounts, "", false},
		{"not mounted", "0::/docker/" + boxID + "\n", "", "", false},
		{"malformed", "x\n", v2Mounts, "", false},
		{"climbing", "0::/../../etc/" + boxID + "\n", v2Mounts, "/sys/fs/cgroup/etc/" + boxID, true},
	}
	for _, tt := range tests {
		g, err := findCgroups([]byte(tt.own), []byte(tt.mounts), boxID)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %+v, %v; want success %t", tt.name, g, err, tt.ok)
			continue
		}
		got := g.unified
		if got == "" && len(g.v1) > 0 {
			got = fmt.Sprint(g.v1)
		}
		if tt.ok && got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestCgroupNumbers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("memory.max", "max\n")
	write("pids.max", "256\n")
	write("cpu.max", "250000 50000\n")
	write("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
	write("cpu.cfs_quota_us", "50000\n")
	write("cpu.cfs_period_us", "100000\n")
	write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
	v2 := cgroups{unified: dir}
	v1 := cgroups{v1: map[string]string{"cpu": dir, "memory": dir, "pids": dir}}
	if n, err := v2.number("memory", "", "memory.max"); n != -1 || err != nil {
		t.Errorf("memory.max = %d, %v", n, err)
	}
	for name, g := range map[string]cgroups{"v1": v1, "v2": v2} {
		if n, err := g.number("pids", "pids.max", "pids.max"); n != 256 || err != nil {
			t.Errorf("%s: pids.max = %d, %v", name, n, err)
		}
	}
	if n, err := v2.cpuMillis(); n != 5000 || err != nil {
		t.Errorf("v2 cpu = %d, %v", n, err)
	}
	if n, err := v1.cpuMillis(); n != 500 || err != nil {
		t.Errorf("v1 cpu = %d, %v", n, err)
	}
	if v1.oomKills() != 7 || v2.oomKills() != 2 {
		t.Errorf("oom kills: %d and %d, want 7 and 2", v1.oomKills(), v2.oomKills())
	}
	write("cpu.max", "max 100000\n")
	if n, err := v2.cpuMillis(); n != -1 || err != nil {
		t.Errorf("v2 cpu without a limit = %d, %v", n, err)
	}
	if _, err := v1.number("hugetlb", "x", "x"); err == nil {
		t.Error("a controller that is not there has a number")
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Add([]byte("1 2 0:1 / / ro - overlay overlay rw\n2 1 0:2 / /\\134x\\11 rw - tmpfs - rw"))
	f.Add([]byte(" - "))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := parseMountinfo(text)
		if err != nil {
			return
		}
		if lines := slices.Collect(strings.Lines(string(text))); len(entries) != len(lines) {
			t.Errorf("%d lines give %d mounts", len(lines), len(entries))
		}
	})
}

func FuzzFindCgroups(f *testing.F) {
	f.Add([]byte("5:memory:/docker/"+boxID+"\n"), []byte("30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"))
	f.Add([]byte("0::/docker/"+boxID), []byte("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"))
	f.Fuzz(func(t *testing.T, own, mounts []byte) {
		g, err := findCgroups(own, mounts, boxID)
		if err == nil && g.unified == "" && len(g.v1) == 0 {
			t.Error("success without a group")
		}
		if g.unified != "" && !strings.Contains(g.unified, boxID) {
			t.Errorf("%q is not the container's", g.unified)
		}
	})
}

func TestUnescapeMount(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\011\012\134`: "/a\t\n\\", `/a\9`: `/a\9`, `\`: `\`, `/x\777`: `/x\777`, "": ""} {
		if got := unescapeMount(in); got != want {
			t.Errorf("unescapeMount(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTailBuffer(t *testing.T) {
	tests := []struct {
		max  int
		in   []string
		want string
	}{
		{100, []string{"a\nb\n"}, "a\nb\n"},
		{4, []string{"aa\nbb\ncc\n"}, "cc\n"},
		{4, []string{"a\n", "b\n", "c\n", "d\n"}, "d\n"},
		{3, []string{"abcdef"}, "def"},
		{2, []string{"abc\n"}, "c\n"},
		{1 << 20, nil, ""},
	}
	for _, tt := range tests {
		b := &tailBuffer{max: tt.max}
		for _, p := range tt.in {
			fmt.Fprint(b, p)
		}
		if got := b.lines(); string(got) != tt.want {
			t.Errorf("newest %d bytes of %q = %q, want %q", tt.max, tt.in, got, tt.want)
		}
	}
	b := &tailBuffer{max: 1000}
	for range 10000 {
		b.Write(bytes.Repeat([]byte("x"), 100))
	}
	if cap(b.buf) > 10000 {
		t.Errorf("a buffer for 1000 bytes has grown to %d", cap(b.buf))
	}
}

const goodStatus = "Name:\tbailey-agent\nUid:\t20001\t20001\t20001\t20001\nGid:\t20001\t20001\t20001\t20001\nGroups:\t \n" +
	"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"

func TestVerifyStatus(t *testing.T) {
	tests := []struct {
		from, to, control string
	}{
		{"", "", ""},
		{"Groups:\t \n", "Groups:\t20001 \n", ""},
		{"Groups:\t \n", "Groups:\t999 \n", "groups"},
		{"Uid:\t20001\t20001\t20001\t20001", "Uid:\t20001\t0\t20001\t20001", "uid"},
		{"Gid:\t20001\t20001\t20001\t20001", "Gid:\t20001\t20001\t0\t20001", "gid"},
		{"CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "bounding capabilities"},
		{"CapEff:\t0000000000000000", "CapEff:\t00000000a80425fb", "effective capabilities"},
		{"CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001", "ambient capabilities"},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t0", "no-new-privileges"},
		{"Seccomp:\t2", "Seccomp:\t0", "seccomp"},
	}
	for _, tt := range tests {
		var f findings
		text := strings.Replace(goodStatus, tt.from, tt.to, 1)
		if err := f.status([]byte(text), 20001); err != nil {
			t.Errorf("%q: %v", tt.to, err)
		}
		got := ""
		if len(f) > 0 {
			got = f[0].Control
		}
		if got != tt.control || len(f) > 1 {
			t.Errorf("with %q: findings %+v, want one about %q", tt.to, f, tt.control)
		}
	}
	var f findings
	if err := f.status([]byte(strings.Replace(goodStatus, "Seccomp:\t2\n", "", 1)), 20001); err == nil {
		t.Error("a kernel that does not tell about seccomp is no error")
	}
}

func TestVerifyMountTable(t *testing.T) {
	s, fa := testSpec().Defaulted(), testFacts()
	good := "1 0 0:1 / / ro,relatime - overlay overlay rw\n" +
		"2 1 0:2 / /proc rw,nosuid,nodev,noexec - proc proc rw\n3 1 0:3 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n" +
		"4 1 0:4 / /tmp rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=2097152k\n5 1 0:5 / /run rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=16384k,mode=755,uid=20001\n" +
		"6 1 0:6 / /var/tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=65536k\n7 1 0:7 / /dev/shm rw,nosuid,nodev,noexec - tmpfs shm rw,size=2097152k\n" +
		"8 1 8:1 /var/lib/bailey/volumes/v /workspace rw,relatime - ext4 /dev/sda1 rw\n9 5 8:1 /s /run/bailey rw,relatime - ext4 /dev/sda1 rw\n" +
		"10 1 8:1 /c /etc/bailey ro,relatime - ext4 /dev/sda1 rw\n11 1 8:1 /p /etc/passwd ro - ext4 /dev/sda1 rw\n12 1 8:1 /g /etc/group ro - ext4 /dev/sda1 rw\n" +
		"13 1 8:1 /r /etc/resolv.conf ro - ext4 /dev/sda1 rw\n" +
		"13 1 8:1 /a /opt/bailey/bailey-agent ro - ext4 /dev/sda1 rw\n14 1 0:8 / /sys ro,nosuid,nodev,noexec - sysfs sysfs ro\n"
	for _, path := range engine.Strict().MaskedPaths {
		good += "20 2 0:9 /null " + path + " rw,nosuid - tmpfs tmpfs rw\n"
	}
	for _, path := range engine.Strict().ReadOnlyPaths {
		good += "21 2 0:2 / " + path + " ro - proc proc rw\n"
	}
	tests := []struct{ from, to, control string }{
		{"", "", ""},
		{"/ / ro,relatime - overlay", "/ / rw,relatime - overlay", "mount /"},
		{"/workspace rw,relatime -", "/workspace rw,relatime shared:5 -", "mount /workspace"},
		{"/etc/bailey ro,", "/etc/bailey rw,", "mount /etc/bailey"},
		{"/opt/bailey/bailey-agent ro", "/opt/bailey/bailey-agent rw", "mount /opt/bailey/bailey-agent"},
		{"/tmp rw,nosuid,nodev,relatime", "/tmp rw,nodev,relatime", "mount /tmp"},
		{"/tmp rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=2097152k", "/tmp rw,nosuid,nodev,relatime - tmpfs tmpfs rw", "mount /tmp"},
		{"/run rw,nosuid,nodev,noexec", "/run rw,nosuid,nodev", "mount /run"},
		{"/dev/shm rw,nosuid,nodev,noexec - tmpfs shm rw,size=2097152k", "/dev/shm rw,nosuid,nodev,noexec - tmpfs shm rw,size=65536k", "mount /dev/shm"},
		{"20 2 0:9 /null /proc/interrupts rw,nosuid - tmpfs tmpfs rw\n", "", "mount /proc/interrupts"},
		{"/ /proc/sys ro", "/ /proc/sys rw", "mount /proc/sys"},
		{"/ /sys ro,", "/ /sys rw,", "mount /sys"},
		{"/etc/resolv.conf ro", "/etc/resolv.conf rw", "mount /etc/resolv.conf"},
		// A workspace without a way out has none.
		{"8 1 8:1", "30 1 8:1 /egress /opt/bailey/egress ro - ext4 /dev/sda1 rw\n8 1 8:1", "mount /opt/bailey/egress"},
		{"8 1 8:1", "30 1 8:1 / /host rw - ext4 /dev/sda1 rw\n8 1 8:1", "mount /host"},
		{"8 1 8:1", "30 1 0:5 / /var/run/docker.sock rw - tmpfs tmpfs rw\n8 1 8:1", "mount /var/run/docker.sock"},
		{"8 1 8:1", "30 1 8:1 /lib /usr/lib/libcuda.so.1 ro - ext4 /dev/sda1 rw\n8 1 8:1", "mount /usr/lib/libcuda.so.1"},
		{"9 5 8:1", "31 5 8:1 /other /run/bailey rw,relatime - ext4 /dev/sda1 rw\n9 5 8:1", "mount /run/bailey"},
	}
	for _, tt := range tests {
		var f findings
		entries, err := parseMountinfo([]byte(strings.Replace(good, tt.from, tt.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		f.mountTable(entries, s, fa)
		if tt.control == "" && len(f) > 0 || tt.control != "" && !slices.ContainsFunc(f, func(x engine.Finding) bool { return x.Control == tt.control }) {
			t.Errorf("with %q: findings %+v, want one about %q", tt.to, f, tt.control)
		}
	}
	// One that has a way out has it read-only.
	out := s
	out.Network = engine.NetworkProxied
	for line, fits := range map[string]bool{
		"30 1 8:1 /egress /opt/bailey/egress ro - ext4 /dev/sda1 rw\n": true,
		"30 1 8:1 /egress /opt/bailey/egress rw - ext4 /dev/sda1 rw\n": false,
		"": false,
	} {
		var f findings
		entries, err := parseMountinfo([]byte(good + line))
		if err != nil {
			t.Fatal(err)
		}
		f.mountTable(entries, out, fa)
		if (len(f) == 0) != fits {
			t.Errorf("proxied, with %q: findings %+v, want none: %t", line, f, fits)
		}
	}
	// With a GPU leased, the driver's own files may be there, and no more.
	s.GPUs = []string{"GPU-11111111-2222-3333-4444-555555555555"}
	for line, fits := range map[string]bool{
		"30 1 8:1 /x /usr/lib/x86_64-linux-gnu/libcuda.so.615.71.09 ro,nosuid - ext4 /dev/sda1 rw\n": true,
		"30 1 8:1 /x /usr/bin/nvidia-smi ro,nosuid - ext4 /dev/sda1 rw\n":                            true,
		"30 1 0:5 /nvidia0 /dev/nvidia0 rw,nosuid - devtmpfs devtmpfs rw\n":                          true,
		"30 1 8:1 /x /usr/lib/x86_64-linux-gnu/libcuda.so.615.71.09 rw,nosuid - ext4 /dev/sda1 rw\n": false,
		"30 1 8:1 / /usr/lib/evil ro - ext4 /dev/sda1 rw\n":                                          false,
		"30 1 8:1 / /nvidia ro - ext4 /dev/sda1 rw\n":                                                false,
		"30 1 8:1 /var/run/docker.sock /run/docker-nvidia.sock rw - ext4 /dev/sda1 rw\n":             false,
		"30 1 8:1 /x /workspace/nvidia ro - ext4 /dev/sda1 rw\n":                                     false,
	} {
		var f findings
		entries, err := parseMountinfo([]byte(good + line))
		if err != nil {
			t.Fatal(err)
		}
		f.mountTable(entries, s, fa)
		if (len(f) == 0) != fits {
			t.Errorf("with a GPU and %q: findings %+v, want none: %t", line, f, fits)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	for rule, want := range map[string]bool{
		"c *:* m": true, "b *:* m": true, "c 1:3 rwm": true, "c 5:2 rwm": true, "c 136:* rwm": true, "c 10:200 rwm": true,
		"a *:* rwm": false, "b 8:0 rwm": false, "b *:* rwm": false, "c *:* rw": false, "c 1:1 rwm": false, "c 195:0 rw": false, "": false, "c 1:3": false,
	} {
		if got := deviceRuleFits(rule, false); got != want {
			t.Errorf("deviceRuleFits(%q) = %t, want %t", rule, got, want)
		}
	}
	if !deviceRuleFits("c 195:255 rw", true) || deviceRuleFits("b 195:0 rw", true) || deviceRuleFits("c 10:229 rw", true) {
		t.Error("with GPUs leased, NVIDIA's character devices fit, and no others")
	}
}

func TestMaxFiles(t *testing.T) {
	limits := "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 20000                files     \n"
	tests := []struct {
		status, limits string
		want           int64
	}{
		{"CapEff:\t000001ffffffffff\n", limits, 0},
		{"CapEff:\t000001fffeffffff\n", limits, 20000},
		{"CapEff:\t000001fffeffffff\n", strings.Replace(limits, "20000    ", "unlimited", 1), 0},
		{"CapEff:\tx\n", limits, 0},
		{"CapEff:\t000001fffeffffff\n", "", 0},
	}
	for _, tt := range tests {
		if got := maxFiles(tt.status, tt.limits); got != tt.want {
			t.Errorf("maxFiles(%q) = %d, want %d", tt.status, got, tt.want)
		}
	}
}
