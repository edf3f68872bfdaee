package doctor

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// room judges the file system that holds path, or will.
func (h *host) room(path, mend string) verdict {
	there := h.nearestThere(path)
	d, err := h.Disk(h.at(there))
	if err != nil {
		return warn(err.Error(), "check with: df -h "+there)
	}
	const gib = 1 << 30
	free := fmt.Sprintf("%.1f GiB free at %s", float64(d.FreeBytes)/gib, path)
	switch {
	case d.FreeBytes < gib:
		return fail(free, "make room: "+mend)
	case d.Files > 0 && d.FreeInodes < 10_000:
		return fail(fmt.Sprintf("only %d more files fit at %s", d.FreeInodes, path), "remove small files: "+mend)
	case d.FreeBytes < 10*gib:
		return warn(free, "make room: "+mend)
	case d.Files > 0 && d.FreeInodes < 100_000:
		return warn(fmt.Sprintf("only %d more files fit at %s", d.FreeInodes, path), "remove small files: "+mend)
	}
	return ok(free)
}

func stateDisk(h *host) verdict {
	return h.room(h.StateDir, "du -xh "+h.StateDir+" | sort -h | tail shows what takes it; people's files are in volumes")
}

// sharedOrigin says that a browser keeps nothing apart. An administrator said so
// in the configuration, and is told at every look.
func sharedOrigin(h *host) verdict {
	if !h.OneOrigin {
		return ok("a browser keeps every workspace and the console apart")
	}
	return warn("origin.mode is path: to a browser the console and all workspaces are one; a notebook's script can look like the console, and reaches its reader's other workspaces",
		"origin.mode: subdomain (a domain with a wildcard DNS record) or port (an address without DNS), then stop and start the workspaces; docs/edge.md says what holds meanwhile")
}

// openNetworks names the classes whose network mode is bridge. That is an
// administrator's choice, and one to be reminded of.
func openNetworks(h *host) verdict {
	if len(h.Bridged) == 0 {
		return ok("what workspaces reach goes through the server, or nowhere")
	}
	return warn("from workspaces of "+strings.Join(h.Bridged, ", ")+" this host's services and the networks it is in can be reached, unasked and unrecorded",
		"network: proxied with an egress policy reaches what people need; if it must be bridge, keep this host's ports off the bridge with a firewall")
}

func stateMode(h *host) verdict {
	info, err := os.Lstat(h.at(h.StateDir))
	switch {
	case notThere(err):
		return h.parentMode()
	case isAny(err, fs.ErrPermission):
		return warn("no permission to look at "+h.StateDir, "run bailey doctor as root")
	case err != nil:
		return warn(err.Error(), "check "+h.StateDir)
	case info.Mode()&fs.ModeSymlink != 0:
		return warn(h.StateDir+" is a link: whoever owns a directory on the way can send the server elsewhere", "name the directory itself as the state")
	case !info.IsDir():
		return fail(h.StateDir+" is not a directory", "name another directory as the state, or move the file away")
	case info.Mode().Perm()&0o022 != 0:
		return fail(fmt.Sprintf("%s has mode %04o: others can replace keys, database and journal", h.StateDir, info.Mode().Perm()), "chmod 700 "+h.StateDir)
	case info.Mode().Perm()&0o007 != 0:
		return warn(fmt.Sprintf("%s has mode %04o: other users of the machine can look inside", h.StateDir, info.Mode().Perm()), "chmod 700 "+h.StateDir)
	}
	if st, isStat := info.Sys().(*syscall.Stat_t); isStat && h.euid() >= 0 && int(st.Uid) != h.euid() && st.Uid != 0 {
		return fail(fmt.Sprintf("%s belongs to user %d, who can replace keys, database and journal", h.StateDir, st.Uid), "chown root: "+h.StateDir)
	}
	return h.parentMode()
}

// parentMode looks at the directories above the state: who may write one of
// them may swap what is below.
func (h *host) parentMode() verdict {
	for dir := filepath.Dir(h.StateDir); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		info, err := os.Stat(h.at(dir))
		if err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fail(fmt.Sprintf("%s above it has mode %04o: everybody can replace the whole state", dir, info.Mode().Perm()), "chmod o-w "+dir)
		}
	}
	if !h.exists(h.StateDir) {
		return ok(h.StateDir + " will be made")
	}
	return ok(h.StateDir)
}

func stateMount(h *host) verdict {
	data, err := h.read("/proc/self/mountinfo")
	if err != nil {
		return warn("the list of mounts cannot be read", "check with `findmnt -T "+h.StateDir+"` that it is a local disk without noexec")
	}
	m, found := mountOf(string(data), h.StateDir)
	switch {
	case !found:
		return ok("how it is mounted is not known")
	case strings.Contains(","+m.options+",", ",noexec,"):
		return fail(m.point+" is mounted noexec: the program that workspaces start with lies there and cannot run", "mount -o remount,exec "+m.point+", or name another directory as the state")
	case strings.Contains(","+m.options+",", ",ro,"):
		return fail(m.point+" is mounted read-only", "mount -o remount,rw "+m.point+", or name another directory as the state")
	case m.kind == "tmpfs" || m.kind == "ramfs":
		return warn(m.point+" is in memory ("+m.kind+"): accounts, volumes and the journal are gone after a restart of the machine", "name a directory on a disk as the state, unless this is a trial")
	case strings.HasPrefix(m.kind, "nfs"), m.kind == "cifs", m.kind == "smb3", strings.HasPrefix(m.kind, "fuse."), m.kind == "9p":
		return warn(m.point+" is a network file system ("+m.kind+"): locks and durable writes may not hold", "name a directory on a local disk as the state")
	}
	return okf("%s on %s", m.kind, m.point)
}

// A mount is one line of mountinfo.
type mount struct{ point, options, kind string }

// mountOf returns the mount that holds path. Of several on one point the last
// is on top.
func mountOf(text, path string) (best mount, found bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		point, kind := unescape(f[4]), ""
		for i, field := range f {
			if field == "-" && i+1 < len(f) {
				kind = f[i+1]
			}
		}
		if path == point || point == "/" || strings.HasPrefix(path, point+"/") {
			if len(point) >= len(best.point) {
				best, found = mount{point, f[5], kind}, true
			}
		}
	}
	return best, found
}

// unescape undoes mountinfo's octal escapes for space, tab, newline and "\".
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func rootUser(h *host) verdict {
	switch uid := h.euid(); uid {
	case 0:
		return ok("this is root")
	case -1:
		return ok("who this is, is not known")
	default:
		return warn(fmt.Sprintf("this is user %d: volumes cannot be handed to their owners, and some checks could not look", uid), "run bailey up and bailey doctor as root")
	}
}

// listeners returns the addresses on which something listens for TCP.
func (h *host) listeners() []netip.AddrPort {
	var all []netip.AddrPort
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if data, err := h.read(name); err == nil {
			all = append(all, parseListeners(string(data))...)
		}
	}
	return all
}

// parseListeners reads /proc/net/tcp or tcp6.
func parseListeners(text string) []netip.AddrPort {
	var all []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" { // TCP_LISTEN
			continue
		}
		addr, port, _ := strings.Cut(f[1], ":")
		p, err := strconv.ParseUint(port, 16, 16)
		raw, errAddr := hex.DecodeString(addr)
		if err != nil || errAddr != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 { // 32-bit words in the machine's order
			raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
		}
		if ip, isIP := netip.AddrFromSlice(raw); isIP {
			all = append(all, netip.AddrPortFrom(ip.Unmap(), uint16(p)))
		}
	}
	return all
}

func ports(h *host) verdict {
	if len(h.Listen) == 0 {
		return ok("none was asked for")
	}
	taken := h.listeners()
	low, known := h.sysctl("net/ipv4/ip_unprivileged_port_start")
	if !known {
		low = 1024
	}
	for _, text := range h.Listen {
		name, portText, err := net.SplitHostPort(text)
		port, errPort := strconv.ParseUint(portText, 10, 16)
		if err != nil || errPort != nil {
			return fail(fmt.Sprintf("%q is not an address to listen on", text), "write it as 127.0.0.1:8443 or :8443")
		}
		if uid := h.euid(); port > 0 && int(port) < low && uid > 0 {
			return fail(fmt.Sprintf("port %d is kept for root, and this is user %d", port, uid), "run bailey as root, or choose a port from "+strconv.Itoa(low)+" up")
		}
		if name == "localhost" {
			name = "127.0.0.1"
		}
		want, _ := netip.ParseAddr(name) // of what is no address: every address
		for _, t := range taken {
			if port > 0 && uint64(t.Port()) == port && (!want.IsValid() || want.IsUnspecified() || t.Addr().IsUnspecified() || want.Unmap() == t.Addr()) {
				return fail(fmt.Sprintf("%s is taken: something listens on %s", text, t), fmt.Sprintf("find it with `ss -ltnp sport = :%d` and stop it, or choose another port; if it is bailey itself, all is well: bailey doctor --running", port))
			}
		}
	}
	return ok(strings.Join(h.Listen, ", "))
}

func clock(h *host) verdict {
	// No copy of this program was built before: no clock that is right shows less.
	released := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if h.Now.Before(released) {
		return fail("it shows "+h.Now.UTC().Format("2006-01-02 15:04")+", which is before this program was made: certificates and sessions would be invalid", "set the clock: timedatectl set-ntp true, or date -s")
	}
	if h.Now.After(released.AddDate(30, 0, 0)) {
		return fail("it shows "+h.Now.UTC().Format("2006-01-02 15:04")+", decades ahead: certificates would have expired", "set the clock: timedatectl set-ntp true, or date -s")
	}
	return ok(h.Now.UTC().Format("2006-01-02 15:04") + " UTC")
}

// clockBack compares the clock with the newest file of the state directory.
func clockBack(h *host) verdict {
	entries, err := os.ReadDir(h.at(h.StateDir))
	if err != nil {
		return ok("there is no state to compare with")
	}
	var newest time.Time
	name := ""
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest, name = info.ModTime(), e.Name()
		}
	}
	if ahead := newest.Sub(h.Now); ahead > 5*time.Minute {
		return warn(fmt.Sprintf("%s was written %s in the future: the clock was set back, or the file's time was set", name, ahead.Round(time.Minute)),
			"set the clock right; until it has caught up, sessions may last longer than they should")
	}
	return ok("no file of the state is from the future")
}

func clockSync(h *host) verdict {
	const mend = "timedatectl set-ntp true (or: apt-get install chrony)"
	synced, err := h.Synced()
	switch {
	case err == nil && synced, h.exists("/run/systemd/timesync/synchronized"):
		return ok("synchronised")
	case err != nil:
		return warn("whether it is, is not known: "+err.Error(), mend)
	}
	return warn("nothing keeps it right: one-time codes, certificates and the order of the audit log depend on it", mend)
}
