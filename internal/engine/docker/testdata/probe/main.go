// Command probe tries, from inside a workspace, everything that must not work
// there, and a few things that must. It prints one JSON object: attempt to
// "denied: why" or "allowed: how".
//
// Arguments that could do harm if a wall were missing are chosen wrong on
// purpose: a call that gets through then fails by its arguments, with another
// error than the one a wall gives.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var results = map[string]string{}

// denied and allowed note what became of an attempt. A wall answers with one of
// a few errors; any other means that the kernel's own code looked at the
// arguments, so the call went through.
func try(name string, err error) {
	switch {
	case err == nil:
		results[name] = "allowed"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOSYS),
		errors.Is(err, unix.ENETUNREACH), errors.Is(err, os.ErrNotExist):
		results[name] = "denied: " + err.Error()
	default:
		results[name] = "allowed: " + err.Error()
	}
}

func call(name string, number uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		try(name, errno)
		return
	}
	try(name, nil)
}

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1])
		return
	}
	identity()
	files()
	mounts()
	namespaces()
	sockets()
	calls()
	devices()
	kernelFiles()
	network()
	limits()
	children()
	grants()
	json.NewEncoder(os.Stdout).Encode(results)
}

func identity() {
	call("setuid 0", unix.SYS_SETUID, 0)
	call("setgid 0", unix.SYS_SETGID, 0)
	zero := []uint32{0}
	try("setgroups", syscall.Setgroups([]int{int(zero[0])}))
	out, err := exec.Command("/bin/busybox", "id", "-u").Output() // setuid root in the test image
	if err == nil && strings.TrimSpace(string(out)) != "0" {
		err = unix.EPERM
	}
	try("setuid program", err)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_RAW, Permitted: 1 << unix.CAP_NET_RAW}}
	try("capset", unix.Capset(&hdr, &data[0]))
	try("ambient capability", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_RAW, 0, 0))
	try("no_new_privs off", func() error {
		if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
			return nil
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil {
			return nil
		}
		return unix.EPERM
	}())
}

func writeTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		f.Close()
	}
	return err
}

func files() {
	for _, dir := range []string{"/", "/bin", "/etc", "/opt", "/opt/bailey", "/etc/bailey", "/usr", "/var", "/sys", "/proc", "/dev"} {
		try("create in "+dir, create(filepath.Join(dir, "x")))
	}
	for _, file := range []string{"/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/bailey/agent.json", "/etc/bailey/jupyter-token", "/opt/bailey/bailey-agent", "/bin/busybox"} {
		try("write "+file, writeTo(file))
	}
	try("rename over the agent", os.Rename("/etc/passwd", "/opt/bailey/bailey-agent"))
	try("chmod of the token", os.Chmod("/etc/bailey/jupyter-token", 0o666))
	try("chown to root", os.Chown("/workspace", 0, 0))
	try("docker socket", func() error { _, err := os.Stat("/var/run/docker.sock"); return err }())
	try("docker socket in run", func() error { _, err := os.Stat("/run/docker.sock"); return err }())
	try("move away the socket directory", func() error {
		if err := os.Rename("/run/bailey", "/run/x"); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		} else if err != nil {
			return unix.EPERM
		}
		return nil
	}())
}

func mounts() {
	try("mount tmpfs", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	try("mount proc", unix.Mount("none", "/tmp", "proc", 0, ""))
	try("bind mount", unix.Mount("/workspace", "/tmp", "", unix.MS_BIND, ""))
	try("remount / writable", unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	try("umount masked file", unix.Unmount("/proc/kcore", unix.MNT_DETACH))
	try("pivot_root", unix.PivotRoot("/tmp", "/tmp"))
	try("chroot", unix.Chroot("/tmp"))
	call("fsopen", unix.SYS_FSOPEN)
	call("open_tree", unix.SYS_OPEN_TREE)
	call("move_mount", unix.SYS_MOVE_MOUNT)
	call("mount_setattr", unix.SYS_MOUNT_SETATTR)
	call("fsconfig", unix.SYS_FSCONFIG)
}

func namespaces() {
	for name, flag := range map[string]uintptr{
		"user": unix.CLONE_NEWUSER, "net": unix.CLONE_NEWNET, "mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID,
		"ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP,
	} {
		call("unshare "+name, unix.SYS_UNSHARE, flag)
		cmd := exec.Command("/proc/self/exe", "ok")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
		try("clone "+name, cmd.Run())
	}
	call("clone3", unix.SYS_CLONE3)
	call("setns", unix.SYS_SETNS, ^uintptr(0), 0)
}

func sockets() {
	for name, s := range map[string][3]int{
		"raw ip": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "raw ipv6": {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		"packet": {unix.AF_PACKET, unix.SOCK_RAW, 0}, "alg": {unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, "vsock": {unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		"key": {unix.AF_KEY, unix.SOCK_RAW, 2}, "rxrpc": {unix.AF_RXRPC, unix.SOCK_DGRAM, 2}, "xdp": {unix.AF_XDP, unix.SOCK_RAW, 0},
		"tipc": {unix.AF_TIPC, unix.SOCK_STREAM, 0}, "bluetooth": {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1}, "can": {unix.AF_CAN, unix.SOCK_RAW, 1},
		"rds": {unix.AF_RDS, unix.SOCK_SEQPACKET, 0}, "smc": {unix.AF_SMC, unix.SOCK_STREAM, 0}, "nfc": {unix.AF_NFC, unix.SOCK_SEQPACKET, 0},
		"qipcrtr": {unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0}, "kcm": {unix.AF_KCM, unix.SOCK_DGRAM, 0}, "ax25": {unix.AF_AX25, unix.SOCK_DGRAM, 0}, "llc": {unix.AF_LLC, unix.SOCK_DGRAM, 0},
		"netlink xfrm": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}, "netlink netfilter": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		"netlink audit": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, "netlink uevent": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		"netlink generic": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC}, "netlink crypto": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CRYPTO},
	} {
		fd, err := unix.Socket(s[0], s[1], s[2])
		if err == nil {
			unix.Close(fd)
		}
		try("socket "+name, err)
	}
	_, err := unix.Socketpair(unix.AF_TIPC, unix.SOCK_STREAM, 0)
	try("socketpair tipc", err)
}

func calls() {
	bad := ^uintptr(0) // as a pointer: EFAULT, as a descriptor: EBADF, as flags: EINVAL
	for name, number := range map[string]uintptr{
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "bpf": unix.SYS_BPF,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD, "kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD,
		"init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE,
		"reboot": unix.SYS_REBOOT, "swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF, "syslog": unix.SYS_SYSLOG, "acct": unix.SYS_ACCT,
		"settimeofday": unix.SYS_SETTIMEOFDAY, "clock_settime": unix.SYS_CLOCK_SETTIME, "sethostname": unix.SYS_SETHOSTNAME, "setdomainname": unix.SYS_SETDOMAINNAME,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "kcmp": unix.SYS_KCMP, "quotactl": unix.SYS_QUOTACTL,
		"fanotify_init": unix.SYS_FANOTIFY_INIT, "move_pages": unix.SYS_MOVE_PAGES, "mbind": unix.SYS_MBIND, "vhangup": unix.SYS_VHANGUP,
		"process_madvise": unix.SYS_PROCESS_MADVISE, "nfsservctl": unix.SYS_NFSSERVCTL, "lookup_dcookie": unix.SYS_LOOKUP_DCOOKIE,
		"a call of no kernel": 4000,
	} {
		call(name, number, bad, bad, bad, bad, bad, bad)
	}
	call("personality without randomisation", unix.SYS_PERSONALITY, 0x0040000)
}

func devices() {
	for name, mode := range map[string]uint32{"char": unix.S_IFCHR, "block": unix.S_IFBLK} {
		try("mknod "+name, unix.Mknod("/tmp/dev-"+name, mode|0o666, int(unix.Mkdev(8, 0))))
		try("mknod in run "+name, unix.Mknod("/run/bailey/dev-"+name, mode|0o666, int(unix.Mkdev(1, 1))))
	}
	for _, dev := range []string{"mem", "kmem", "port", "kmsg", "sda", "vda", "net/tun", "fuse", "kvm", "loop-control", "nvidia0", "nvidiactl", "dri/card0"} {
		try("open /dev/"+dev, func() error {
			f, err := os.Open("/dev/" + dev)
			if err == nil {
				f.Close()
			}
			return err
		}())
	}
}

// silent makes sure that a file tells nothing.
func silent(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && len(text) == 0 {
		return unix.EPERM
	}
	return err
}

func kernelFiles() {
	for _, file := range []string{"/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/irq/default_smp_affinity"} {
		try("write "+file, writeTo(file))
	}
	for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/interrupts", "/proc/timer_list", "/proc/sched_debug", "/proc/kmsg"} {
		try("read "+file, silent(file))
	}
	for _, dir := range []string{"/sys/firmware", "/proc/acpi", "/proc/scsi", "/sys/devices/virtual/powercap"} {
		try("list "+dir, func() error {
			entries, err := os.ReadDir(dir)
			if err == nil && len(entries) == 0 {
				return unix.EPERM
			}
			return err
		}())
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/devices", "/sys/fs/cgroup/pids"} {
		try("make a group in "+dir, os.Mkdir(dir+"/x", 0o755))
	}
	for _, file := range []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/release_agent"} {
		try("write "+file, writeTo(file))
	}
	try("a process of somebody else", func() error {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			var st unix.Stat_t
			if unix.Stat(dir, &st) == nil && int(st.Uid) != os.Getuid() {
				return nil
			}
		}
		if len(dirs) > 50 {
			return nil
		}
		return unix.EPERM
	}())
	try("agent's memory by an outsider's number", func() error { _, err := os.ReadFile("/proc/999999/mem"); return err }())
}

func network() {
	for _, target := range strings.Fields(os.Getenv("TARGETS")) {
		try("connect "+target, func() error {
			conn, err := net.DialTimeout("tcp", target, 2*time.Second)
			if err == nil {
				conn.Close()
			}
			if errors.Is(err, unix.ECONNREFUSED) && strings.HasPrefix(target, "127.") {
				return unix.EPERM // our own loopback answers, and nobody listens
			}
			return err
		}())
	}
	try("udp to a name server", func() error {
		conn, err := net.Dial("udp", "8.8.8.8:53")
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		return err
	}())
	try("abstract socket of the host", func() error {
		conn, err := net.Dial("unix", os.Getenv("ABSTRACT"))
		if err == nil {
			conn.Close()
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return unix.EPERM // there is none in this namespace
		}
		return err
	}())
	try("an interface beside lo", func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Name != "lo" && i.Flags&net.FlagUp != 0 {
				return nil
			}
		}
		return errors.Join(err, unix.EPERM)
	}())
}

func limits() {
	for name, which := range map[string]int{"open files": unix.RLIMIT_NOFILE, "core size": unix.RLIMIT_CORE} {
		var now unix.Rlimit
		unix.Getrlimit(which, &now)
		try("raise limit of "+name, unix.Setrlimit(which, &unix.Rlimit{Cur: now.Max + 1, Max: now.Max + 1}))
	}
	for path, mib := range map[string]int{"/tmp": 80, "/run": 20, "/var/tmp": 80, "/dev/shm": 40} {
		try("fill "+path, func() error {
			name := filepath.Join(path, "fill")
			defer os.Remove(name)
			f, err := os.Create(name)
			if err != nil {
				return err
			}
			defer f.Close()
			chunk := make([]byte, 1<<20)
			for range mib {
				if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
					return unix.EPERM
				}
			}
			return nil
		}())
	}
	try("more processes than the limit", func() error {
		var started []*exec.Cmd
		defer func() {
			for _, cmd := range started {
				cmd.Process.Kill()
				cmd.Wait()
			}
		}()
		for range 300 {
			cmd := exec.Command("/bin/busybox", "sleep", "60")
			// Without these it would open /dev/null, which an attack before
			// this one may have taken away where attacks succeed.
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr
			if err := cmd.Start(); errors.Is(err, unix.EAGAIN) {
				return unix.EPERM
			} else if err != nil {
				return err
			}
			started = append(started, cmd)
		}
		return nil
	}())
}

// children are attempts that kill the process that makes them, if all is well.
func children() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, name := range []string{"int80", "x32"} {
		out, err := exec.CommandContext(ctx, "/proc/self/exe", name).CombinedOutput()
		status, ok := exit(err)
		if ok && status.Signaled() && status.Signal() == syscall.SIGSYS {
			results["32-bit call by "+name] = "denied: killed"
			continue
		}
		if ok && status.Exited() && status.ExitStatus() == 42 {
			results["32-bit call by "+name] = "denied: " + string(out)
			continue
		}
		// A kernel that was started without 32-bit calls has no such interrupt:
		// the processor refuses it (SI_KERNEL is 0x80), whatever a filter says.
		if ok && bytes.Contains(out, []byte("SIGSEGV: segmentation violation code=0x80")) {
			results["32-bit call by "+name] = "denied: not on this kernel"
			continue
		}
		results["32-bit call by "+name] = fmt.Sprintf("allowed: %v %s", err, out)
	}
}

func exit(err error) (syscall.WaitStatus, bool) {
	var failed *exec.ExitError
	if !errors.As(err, &failed) {
		return 0, false
	}
	status, ok := failed.Sys().(syscall.WaitStatus)
	return status, ok
}

func child(name string) {
	switch name {
	case "ok":
	case "int80":
		onThread(int80)
	case "x32":
		onThread(func() {
			_, _, errno := unix.RawSyscall(0x40000000|unix.SYS_GETPID, 0, 0, 0)
			if errno == unix.ENOSYS || errno == unix.EPERM {
				fmt.Print(errno)
				os.Exit(42)
			}
		})
	case "traced":
		if _, _, errno := unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0); errno != 0 {
			os.Exit(1)
		}
	}
}

// onThread runs f on a thread of its own. A filter may kill that thread alone;
// the rest of the process then tells so.
func onThread(f func()) {
	runtime.GOMAXPROCS(8)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		f()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		fmt.Print("thread killed")
		os.Exit(42)
	}
}

// grants must work, or nobody could work in a workspace.
func grants() {
	grant := func(name string, err error) { try("may "+name, err) }
	grant("write in /workspace", create("/workspace/file"))
	grant("write in /tmp", create("/tmp/file"))
	grant("write in /run", create("/run/file"))
	grant("write in /dev/shm", create("/dev/shm/file"))
	grant("run a program in /tmp", func() error {
		self, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile("/tmp/self", self, 0o755)
		}
		if err == nil {
			err = exec.Command("/tmp/self", "ok").Run()
		}
		return errors.Join(err, os.Remove("/tmp/self"))
	}())
	grant("map executable memory", func() error {
		mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Munmap(mem)
		}
		return err
	}())
	grant("trace its own child", exec.Command("/proc/self/exe", "traced").Run())
	for name, s := range map[string][3]int{
		"unix": {unix.AF_UNIX, unix.SOCK_STREAM, 0}, "tcp": {unix.AF_INET, unix.SOCK_STREAM, 0}, "udp": {unix.AF_INET, unix.SOCK_DGRAM, 0},
		"tcp6": {unix.AF_INET6, unix.SOCK_STREAM, 0}, "netlink route": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
	} {
		fd, err := unix.Socket(s[0], s[1], s[2])
		if err == nil {
			err = unix.Close(fd)
		}
		grant("open a "+name+" socket", err)
	}
	_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	grant("make a socket pair", err)
	grant("talk over loopback", func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = conn.Close()
		}
		return err
	}())
	_, err = unix.MemfdCreate("x", 0)
	grant("make a memory file", err)
	grant("share memory", func() error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
		if err == nil {
			_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
		return err
	}())
	grant("read its own name", func() error {
		text, err := os.ReadFile("/etc/passwd")
		if err == nil && !strings.Contains(string(text), ":"+strconv.Itoa(os.Getuid())+":") {
			err = unix.EPERM
		}
		return err
	}())
}
