package doctor

import (
	"fmt"
	"path"
	"strings"
)

// permanent says how to keep a kernel setting over a restart.
func permanent(key, value string) string {
	return fmt.Sprintf("sysctl -w %s=%s; to keep it: echo %s=%s > /etc/sysctl.d/60-bailey.conf (append, if the file exists)", key, value, key, value)
}

func cgroupVersion(h *host) verdict {
	if h.Caps.CgroupVersion == "2" {
		return ok("version 2")
	}
	return warn("version 1: limits hold, but memory pressure and GPU memory limits are not available", "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line; every current distribution does so by default")
}

func cgroupControllers(h *host) verdict {
	have := map[string]bool{}
	if h.Caps.CgroupVersion == "2" {
		for name := range strings.FieldsSeq(h.line("/sys/fs/cgroup/cgroup.controllers")) {
			have[name] = true
		}
	} else if data, err := h.read("/proc/cgroups"); err == nil {
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) == 4 && f[3] == "1" && f[1] != "0" {
				have[f[0]] = true
			}
		}
	}
	var gone []string
	for _, name := range []string{"memory", "pids", "cpu"} {
		if !have[name] {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return ok("memory, pids and cpu are there")
	}
	fix := "use a kernel with these controllers, and mount them"
	if gone[0] == "memory" {
		fix = "add cgroup_enable=memory to the kernel's command line and restart the machine"
	}
	return fail("without "+strings.Join(gone, ", ")+": one workspace could take the whole machine", fix)
}

func kernelVersion(h *host) verdict {
	text := h.line("/proc/sys/kernel/osrelease")
	switch {
	case !h.kernel.known:
		return warn("its version cannot be read", "check with `uname -r` that it is at least 5.10")
	case h.kernel.before("5.10.0"):
		return warn(text+" gets no fixes from kernel.org any more", "install a current kernel of your distribution and restart the machine")
	}
	return ok(text)
}

func securityModule(h *host) verdict {
	if strings.HasPrefix(h.line("/sys/module/apparmor/parameters/enabled"), "Y") {
		if h.ProbeErr == nil && !h.Caps.AppArmor {
			return warn("the kernel has AppArmor, but Docker does not use it", "install apparmor's tools (apt-get install apparmor) and restart Docker")
		}
		return ok("AppArmor")
	}
	if h.line("/sys/fs/selinux/enforce") == "1" {
		return ok("SELinux, enforcing")
	}
	return warn("neither: one wall less between a workspace and the host", "turn one on: apt-get install apparmor and boot with apparmor=1 security=apparmor, or SELinux in enforcing mode")
}

// module judges modules through which one container could write into another's
// files. Our own seccomp profile keeps workspaces away from them; other
// containers on the machine are not ours to filter, and share the page cache.
func (h *host) module(names ...string) verdict {
	loaded, builtin := map[string]bool{}, map[string]bool{}
	if data, err := h.read("/proc/modules"); err == nil {
		for line := range strings.Lines(string(data)) {
			name, _, _ := strings.Cut(line, " ")
			loaded[name] = true
		}
	}
	if data, err := h.read("/lib/modules/" + h.line("/proc/sys/kernel/osrelease") + "/modules.builtin"); err == nil {
		for line := range strings.Lines(string(data)) {
			name, _, _ := strings.Cut(path.Base(strings.TrimSpace(line)), ".")
			builtin[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	const why = ": through a hole in old versions a container can change files of the host; workspaces cannot reach it, other containers may"
	var in, fix []string
	for _, name := range names {
		switch {
		case builtin[name]:
			return warn(name+" is built into the kernel"+why, "keep the kernel updated: it cannot be removed")
		case loaded[name]:
			in = append(in, name)
			fix = append(fix, fmt.Sprintf("echo 'install %s /bin/false' >> /etc/modprobe.d/bailey.conf; rmmod %s", name, name))
		}
	}
	if len(in) == 0 {
		return ok("not in the kernel")
	}
	return warn(strings.Join(in, ", ")+" in the kernel"+why, "keep the kernel updated, or, if nothing needs it: "+strings.Join(fix, "; "))
}

func moduleAlgif(h *host) verdict { return h.module("algif_aead") }

// moduleESP does not go by the kernel's number: which versions have the fix of
// the second hole is not known.
func moduleESP(h *host) verdict { return h.module("esp4", "esp6") }

func moduleRxRPC(h *host) verdict {
	if h.kernel.known && h.kernel.reaches("6.18.29", "7.0.6") {
		return okf("kernel %s has the fix", h.kernel)
	}
	return h.module("rxrpc")
}

func ioUring(h *host) verdict {
	switch n, known := h.sysctl("kernel/io_uring_disabled"); {
	case !known:
		return ok("this kernel has no switch for it; workspaces cannot use it in any case")
	case n == 0:
		return warn("every process of the machine but workspaces may use it, and it has had many holes", permanent("kernel.io_uring_disabled", "1"))
	}
	return ok("restricted")
}

func ptraceScope(h *host) verdict {
	switch n, known := h.sysctl("kernel/yama/ptrace_scope"); {
	case !known:
		return warn("the kernel has no Yama: processes of one user can read each other's memory", "use a kernel with CONFIG_SECURITY_YAMA; in workspaces this concerns only their owner's own processes")
	case n == 0:
		return warn("kernel.yama.ptrace_scope is 0: processes of one user can read each other's memory", permanent("kernel.yama.ptrace_scope", "1"))
	default:
		return okf("kernel.yama.ptrace_scope is %d", n)
	}
}

func corePattern(h *host) verdict {
	pattern := h.line("/proc/sys/kernel/core_pattern")
	if program, pipe := strings.CutPrefix(pattern, "|"); pipe {
		return warn("a crash inside a container starts "+strings.TrimSpace(program)+" on the host, as root, with input from inside",
			permanent("kernel.core_pattern", "core")+"; or keep that program up to date")
	}
	return ok("core files, which workspaces may not write")
}

func unprivilegedBPF(h *host) verdict {
	if n, known := h.sysctl("kernel/unprivileged_bpf_disabled"); known && n == 0 {
		return warn("every process of the machine but workspaces may load BPF programs into the kernel", permanent("kernel.unprivileged_bpf_disabled", "1"))
	}
	return ok("off, or not in this kernel")
}

func kernelPointers(h *host) verdict {
	if n, known := h.sysctl("kernel/kptr_restrict"); known && n == 0 {
		return warn("kernel.kptr_restrict is 0: addresses that help an attack on the kernel can be read in /proc", permanent("kernel.kptr_restrict", "1"))
	}
	return ok("hidden")
}

func kernelLog(h *host) verdict {
	if n, known := h.sysctl("kernel/dmesg_restrict"); known && n == 0 {
		return warn("kernel.dmesg_restrict is 0: every user of the machine reads the kernel's log", permanent("kernel.dmesg_restrict", "1"))
	}
	return ok("hidden")
}

func protectedLinks(h *host) verdict {
	for _, key := range []string{"protected_symlinks", "protected_hardlinks"} {
		if n, known := h.sysctl("fs/" + key); known && n == 0 {
			return warn("fs."+key+" is 0: links in shared directories can fool programs of root", permanent("fs."+key, "1"))
		}
	}
	return ok("protected")
}

func swap(h *host) verdict {
	data, err := h.read("/proc/swaps")
	if err != nil || strings.Count(strings.TrimSpace(string(data)), "\n") == 0 {
		return ok("there is no swap")
	}
	if h.Caps.CgroupVersion == "2" || h.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") {
		return ok("there is swap, and workspaces are kept out of it")
	}
	return warn("the kernel cannot limit swap: a workspace may use all of it on top of its memory", "swapoff -a and remove it from /etc/fstab; or boot with swapaccount=1")
}

func memorySize(h *host) verdict {
	const mib = int64(1) << 20
	switch m := h.Caps.MemoryBytes; {
	case m <= 0:
		return ok("how much is not known")
	case m < 1024*mib:
		return fail(fmt.Sprintf("%d MiB: not enough for a single workspace with PyTorch", m/mib), "use a machine with at least 4 GiB")
	case m < 3800*mib:
		return warn(fmt.Sprintf("%d MiB: room for one small workspace", m/mib), "use a machine with at least 4 GiB; keep classes small (--demo)")
	default:
		return okf("%d MiB", m/mib)
	}
}
