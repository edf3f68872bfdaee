package engine_test

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"

	"github.com/baileyhq/bailey/internal/engine"
)

var update = flag.Bool("update", false, "write generated files anew")

const strictJSON = "seccomp/strict.json"

// The profile as it stands in JSON.
type (
	seccompProfile struct {
		DefaultAction   string        `json:"defaultAction"`
		DefaultErrnoRet uint          `json:"defaultErrnoRet"`
		ArchMap         []seccompArch `json:"archMap"`
		Syscalls        []seccompRule `json:"syscalls"`
	}
	seccompArch struct {
		Arch      string   `json:"architecture"`
		SubArches []string `json:"subArchitectures"`
	}
	seccompRule struct {
		Names    []string       `json:"names"`
		Action   string         `json:"action"`
		ErrnoRet *uint          `json:"errnoRet,omitempty"`
		Args     []seccompArg   `json:"args,omitempty"`
		Comment  string         `json:"comment,omitempty"`
		Includes *seccompFilter `json:"includes,omitempty"`
		Excludes *seccompFilter `json:"excludes,omitempty"`
	}
	seccompArg struct {
		Index    uint   `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo,omitempty"`
		Op       string `json:"op"`
	}
	seccompFilter struct {
		Caps      []string `json:"caps,omitempty"`
		Arches    []string `json:"arches,omitempty"`
		MinKernel string   `json:"minKernel,omitempty"`
	}
)

// The address families of <sys/socket.h> and netlink protocols that stay.
const (
	afUnix, afInet, afInet6, afNetlink = 1, 2, 10, 16
	netlinkRoute, netlinkRDMA          = 0, 20
)

// strictFrom makes our profile out of moby's:
//
//   - No 32-bit and x32 calls: subArchitectures are emptied, so that a call by
//     int 0x80 meets no rule and kills the process. That closes the compat table
//     and socketcall, whose arguments a filter cannot see.
//   - socket only for AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK with protocols
//     ROUTE and RDMA. No AF_ALG (CVE-2026-31431), AF_VSOCK, AF_PACKET, AF_RXRPC,
//     AF_KEY, xfrm or netfilter netlink: each a wide door into the kernel, and
//     opening a socket loads the module behind it.
//   - socketpair only for AF_UNIX: for other families it always fails, but only
//     after it has loaded the module.
//   - No socketcall.
//   - Rules that moby adds for a capability are left out: no workspace has one,
//     and if ever one did, it should not get mount(2) by surprise.
func strictFrom(p seccompProfile) seccompProfile {
	for i := range p.ArchMap {
		p.ArchMap[i].SubArches = []string{}
	}
	var rules []seccompRule
	for _, r := range p.Syscalls {
		if r.Includes != nil && len(r.Includes.Caps) > 0 {
			continue
		}
		if r.Excludes != nil {
			r.Excludes.Caps = nil
			if len(r.Excludes.Arches) == 0 && r.Excludes.MinKernel == "" {
				r.Excludes = nil
			}
		}
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool {
			return name == "socket" || name == "socketpair" || name == "socketcall"
		})
		if len(r.Names) > 0 {
			rules = append(rules, r)
		}
	}
	is := func(index uint, value uint64) seccompArg {
		return seccompArg{Index: index, Value: value, Op: "SCMP_CMP_EQ"}
	}
	allow := func(name string, args ...seccompArg) {
		rules = append(rules, seccompRule{Names: []string{name}, Action: "SCMP_ACT_ALLOW", Args: args})
	}
	for _, family := range []uint64{afUnix, afInet, afInet6} {
		allow("socket", is(0, family))
	}
	for _, protocol := range []uint64{netlinkRoute, netlinkRDMA} {
		allow("socket", is(0, afNetlink), is(2, protocol))
	}
	allow("socketpair", is(0, afUnix))
	p.Syscalls = rules
	return p
}

func TestSeccompIsGenerated(t *testing.T) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	var base seccompProfile
	if err := json.Unmarshal(text, &base); err != nil {
		t.Fatal(err)
	}
	want, err := json.MarshalIndent(strictFrom(base), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(strictJSON, want, 0o644); err != nil { //nolint:gosec // a source file
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(strictJSON)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what the generator makes (go generate ./internal/engine) (-want +got):\n%s", strictJSON, diff)
	}
}

func strictProfile(t *testing.T) seccompProfile {
	t.Helper()
	var p seccompProfile
	if err := json.Unmarshal([]byte(engine.Seccomp()), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// decide answers what the filter does with a call on amd64 and a new kernel.
func (p seccompProfile) decide(name string, args ...uint64) string {
	for _, r := range p.Syscalls {
		if !slices.Contains(r.Names, name) || !r.applies() {
			continue
		}
		if slices.IndexFunc(r.Args, func(a seccompArg) bool { return !a.matches(args) }) < 0 {
			return r.Action
		}
	}
	return p.DefaultAction
}

func (r seccompRule) applies() bool {
	if r.Includes != nil && len(r.Includes.Arches) > 0 && !slices.Contains(r.Includes.Arches, "amd64") {
		return false
	}
	return r.Excludes == nil || !slices.Contains(r.Excludes.Arches, "amd64")
}

func (a seccompArg) matches(args []uint64) bool {
	if int(a.Index) >= len(args) {
		return false
	}
	got := args[a.Index]
	switch a.Op {
	case "SCMP_CMP_EQ":
		return got == a.Value
	case "SCMP_CMP_MASKED_EQ":
		return got&a.Value == a.ValueTwo
	}
	return false
}

func TestSeccompDecisions(t *testing.T) {
	const (
		allow = "SCMP_ACT_ALLOW"
		deny  = "SCMP_ACT_ERRNO"
	)
	tests := []struct {
		call string
		args []uint64
		want string
	}{
		{"read", nil, allow},
		{"futex", nil, allow},
		{"mmap", nil, allow},
		{"execve", nil, allow},
		{"ptrace", nil, allow}, // of one's own children: the kernel's rules still hold
		{"arch_prctl", nil, allow},
		{"memfd_create", nil, allow},
		{"clone", []uint64{0x1200011}, allow},      // fork
		{"clone", []uint64{0x3d0f00}, allow},       // a thread
		{"clone", []uint64{0x10000000 | 17}, deny}, // CLONE_NEWUSER
		{"clone", []uint64{0x40000000 | 17}, deny}, // CLONE_NEWNET
		{"clone", []uint64{0x00020000 | 17}, deny}, // CLONE_NEWNS
		{"clone3", nil, deny},                      // ENOSYS: libc falls back to clone
		{"unshare", []uint64{0x10000000}, deny},    //
		{"setns", nil, deny},                       //
		{"socket", []uint64{1, 1, 0}, allow},       // AF_UNIX
		{"socket", []uint64{2, 1, 0}, allow},       // AF_INET
		{"socket", []uint64{10, 1, 0}, allow},      // AF_INET6
		{"socket", []uint64{16, 3, 0}, allow},      // AF_NETLINK ROUTE
		{"socket", []uint64{16, 3, 20}, allow},     // AF_NETLINK RDMA
		{"socket", []uint64{16, 3, 12}, deny},      // AF_NETLINK NETFILTER
		{"socket", []uint64{16, 3, 6}, deny},       // AF_NETLINK XFRM
		{"socket", []uint64{16, 3, 21}, deny},      // AF_NETLINK CRYPTO
		{"socket", []uint64{38, 5, 0}, deny},       // AF_ALG
		{"socket", []uint64{40, 1, 0}, deny},       // AF_VSOCK
		{"socket", []uint64{17, 3, 0}, deny},       // AF_PACKET
		{"socket", []uint64{15, 3, 2}, deny},       // AF_KEY
		{"socket", []uint64{33, 2, 2}, deny},       // AF_RXRPC
		{"socket", []uint64{44, 3, 0}, deny},       // AF_XDP
		{"socket", []uint64{30, 1, 0}, deny},       // AF_TIPC
		{"socket", []uint64{1<<32 | 2, 1}, deny},   // nothing but the exact number
		{"socketpair", []uint64{1, 1, 0}, allow},   //
		{"socketpair", []uint64{30, 1, 0}, deny},   // would load tipc
		{"personality", []uint64{0}, allow},        //
		{"personality", []uint64{0x0400000}, deny}, // ADDR_NO_RANDOMIZE and others
		{"socketcall", []uint64{1}, deny},          //
		{"io_uring_setup", nil, deny},              //
		{"io_uring_enter", nil, deny},              //
		{"io_uring_register", nil, deny},           //
		{"keyctl", nil, deny},                      //
		{"add_key", nil, deny},                     //
		{"request_key", nil, deny},                 //
		{"bpf", nil, deny},                         //
		{"perf_event_open", nil, deny},             //
		{"userfaultfd", nil, deny},                 //
		{"kexec_load", nil, deny},                  //
		{"kexec_file_load", nil, deny},             //
		{"init_module", nil, deny},                 //
		{"finit_module", nil, deny},                //
		{"mount", nil, deny},                       //
		{"umount2", nil, deny},                     //
		{"pivot_root", nil, deny},                  //
		{"fsopen", nil, deny},                      //
		{"open_tree", nil, deny},                   //
		{"open_by_handle_at", nil, deny},           //
		{"chroot", nil, deny},                      //
		{"reboot", nil, deny},                      //
		{"swapon", nil, deny},                      //
		{"syslog", nil, deny},                      //
		{"acct", nil, deny},                        //
		{"settimeofday", nil, deny},                //
		{"iopl", nil, deny},                        //
		{"pidfd_getfd", nil, deny},                 //
		{"kcmp", nil, deny},                        //
		{"quotactl", nil, deny},                    //
		{"a_call_of_a_kernel_to_come", nil, deny},  //
	}
	p := strictProfile(t)
	for _, tt := range tests {
		if got := p.decide(tt.call, tt.args...); got != tt.want {
			t.Errorf("%s%v: %s, want %s", tt.call, tt.args, got, tt.want)
		}
	}
	if p.DefaultErrnoRet != 1 {
		t.Errorf("default errno is %d, want 1 (EPERM)", p.DefaultErrnoRet)
	}
	for _, a := range p.ArchMap {
		if len(a.SubArches) != 0 {
			t.Errorf("%s brings along %v, want no second system call table", a.Arch, a.SubArches)
		}
	}
	for _, r := range p.Syscalls {
		if r.Includes != nil && len(r.Includes.Caps) > 0 || r.Excludes != nil && len(r.Excludes.Caps) > 0 {
			t.Errorf("the rule for %v depends on a capability; workspaces have none", r.Names)
		}
	}
}
