package doctor

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Where Docker's configuration is mended.
const (
	daemonFile = "/etc/docker/daemon.json"
	reload     = "then: systemctl restart docker (or send dockerd SIGHUP)"
)

func dockerAnswers(h *host) verdict {
	err := h.ProbeErr
	switch {
	case err == nil:
		return okf("Docker %s, API %s", h.Caps.Version, h.Caps.APIVersion)
	case isAny(err, fs.ErrPermission, syscall.EACCES):
		return fail("no permission to talk to it at "+h.DockerHost, "run bailey as root")
	case isAny(err, syscall.ECONNREFUSED):
		return fail("nothing listens at "+h.DockerHost, "start it: systemctl start docker (without systemd: dockerd &)")
	case isAny(err, fs.ErrNotExist, syscall.ENOENT), !h.exists(h.socketPath()):
		return fail("there is no socket at "+h.DockerHost, "install Docker: apt-get install docker.io (or docker-ce); start it: systemctl start docker; if its socket is elsewhere, set docker.host")
	}
	// Engine clients tend to lose the cause; the kernel knows who listens.
	if data, errRead := h.read("/proc/net/unix"); errRead == nil && !strings.Contains(string(data), h.socketPath()+"\n") {
		return fail("nothing listens at "+h.DockerHost, "start it: systemctl start docker (without systemd: dockerd &)")
	}
	return fail(err.Error(), "see what Docker says: journalctl -u docker -n 50; docker version")
}

func dockerVersion(h *host) verdict {
	const best = "29.5.1"
	v := parseVersion(h.Caps.Version)
	switch {
	case !v.known:
		return warn(fmt.Sprintf("its version %q cannot be read", h.Caps.Version), "check with `docker version` that it is at least "+best)
	case v.before("20.10.0"):
		return fail(v.String()+" is older than 20.10, the oldest that is supported", "install Docker Engine "+best+" or newer")
	case !v.before(best):
		return ok(h.Caps.Version)
	case v.distribution():
		return warn(h.Caps.Version+" is a distribution's build: which of the fixes up to "+best+" it has, its number does not say",
			"keep it updated (apt-get update && apt-get upgrade docker.io), or install docker-ce "+best+"; workspaces bring their own seccomp profile and bailey never uses `docker cp`, which keep the worst holes shut")
	}
	return warn(h.Caps.Version+" lacks security fixes up to "+best, "install Docker Engine "+best+" or newer; until then: no `docker cp` on workspaces, which can give their users root")
}

func runcVersion(h *host) verdict {
	v := parseVersion(h.Caps.RuncVersion)
	const mend = "install runc 1.3.6, 1.4.3, 1.5.0 or newer; it comes with containerd.io"
	switch {
	case !v.known:
		return warn("its version is not known", "check with `runc --version` that it is at least 1.3.6, 1.4.3 or 1.5.0")
	case v.reaches("1.3.6", "1.4.3", "1.5.0"):
		return ok(h.Caps.RuncVersion)
	case v.distribution():
		return warn(h.Caps.RuncVersion+" is a distribution's build: which fixes it has, its number does not say", "keep it updated (apt-get update && apt-get upgrade runc), or "+mend)
	case v.reaches("1.2.8", "1.3.3", "1.4.0"):
		return warn(h.Caps.RuncVersion+" lacks a minor security fix", mend)
	}
	return fail(h.Caps.RuncVersion+" lets a container write to the host", mend)
}

func runcKernel(h *host) verdict {
	r := parseVersion(h.Caps.RuncVersion)
	affected := !h.kernel.before("6.17.0") && h.kernel.before("7.2.0")
	if h.Caps.CgroupVersion == "2" && r.known && affected && r.before("1.5.2") && !r.distribution() {
		return warn(fmt.Sprintf("runc %s crashes now and then on kernel %s with cgroup v2", r, h.kernel), "install runc 1.5.2 or newer")
	}
	return okf("runc %s, kernel %s", h.Caps.RuncVersion, h.kernel)
}

func containerdVersion(h *host) verdict {
	const mend = "install containerd 1.7.33, 2.0.10, 2.1.9, 2.2.5, 2.3.2 or newer"
	text, distro := h.Containerd, false
	if text == "" {
		text, distro = h.packages["containerd"], true
	}
	if text == "" {
		text, distro = h.packages["containerd.io"], false
	}
	v := parseVersion(text)
	switch {
	case !v.known:
		return ok("its version is not known here")
	case v.reaches("1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2"):
		return ok(text)
	case distro || v.distribution():
		return warn(text+" is a distribution's build: which fixes it has, its number does not say", "keep it updated (apt-get update && apt-get upgrade containerd), or "+mend)
	}
	return warn(text+" lacks security fixes", mend)
}

func seccomp(h *host) verdict {
	if h.Caps.Seccomp {
		return ok("on; workspaces bring a stricter profile of their own")
	}
	return fail("off: workspaces could make every system call, and will not start", "use a kernel with CONFIG_SECCOMP_FILTER and a Docker build with seccomp; remove \"seccomp-profile\": \"unconfined\" from "+daemonFile)
}

func usernsRemap(h *host) verdict {
	if !h.Caps.UsernsRemap {
		return ok("workspaces run as numbers from 20000 up, which own nothing on the host")
	}
	return fail("userns-remap is on: the owner of a volume would be nobody inside, and workspaces will not start", "remove \"userns-remap\" from "+daemonFile+"; "+reload)
}

func liveRestore(h *host) verdict {
	if h.Caps.LiveRestore {
		return ok("live-restore is on")
	}
	return warn("live-restore is off: an update of Docker stops every workspace", "add \"live-restore\": true to "+daemonFile+"; "+reload)
}

func defaultRuntime(h *host) verdict {
	if h.Caps.DefaultRuntime != "nvidia" {
		return okf("the default runtime is %s", h.Caps.DefaultRuntime)
	}
	const mend = "remove \"default-runtime\" from " + daemonFile + "; " + reload
	data, err := h.read("/etc/nvidia-container-runtime/config.toml")
	if err == nil && tomlFalse(string(data), "accept-nvidia-visible-devices-envvar-when-unprivileged") {
		return warn("it is nvidia, though the toolkit ignores the wishes of unprivileged containers", mend)
	}
	return fail("it is nvidia: every container on this machine whose image asks for GPUs gets all of them, leased or not",
		mend+"; or set accept-nvidia-visible-devices-envvar-when-unprivileged = false in /etc/nvidia-container-runtime/config.toml")
}

// tomlFalse reports whether a TOML text sets key to false. It reads lines, not
// TOML: enough for a file of one level of tables and plain values.
func tomlFalse(text, key string) bool {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, "=")
		value, _, _ = strings.Cut(value, "#")
		if strings.TrimSpace(name) == key && strings.TrimSpace(value) == "false" {
			return true
		}
	}
	return false
}

func daemonJSON(h *host) verdict {
	switch {
	case isAny(h.daemonErr, fs.ErrPermission):
		return warn("no permission to read "+daemonFile+": what depends on it was not looked at", "run bailey doctor as root")
	case h.daemonErr != nil:
		return warn(daemonFile+" is "+h.daemonErr.Error()+": Docker will not start with it", "mend the file; check with: dockerd --validate")
	case h.daemon == nil:
		return ok("there is none: Docker runs on its defaults")
	}
	return ok(daemonFile)
}

// dockerTCPConfig looks at the file and at the command lines of running
// daemons, where packages put -H.
func dockerTCPConfig(h *host) verdict {
	var open []string
	verify, _ := h.daemon["tlsverify"].(bool)
	if hosts, ok := h.daemon["hosts"].([]any); ok && !verify {
		for _, v := range hosts {
			if s, ok := v.(string); ok && isTCP(s) {
				open = append(open, s+" in "+daemonFile)
			}
		}
	}
	for _, args := range h.commandLines("dockerd") {
		if slices.ContainsFunc(args, func(a string) bool { return a == "--tlsverify" || a == "--tlsverify=true" }) || verify {
			continue
		}
		for i, a := range args {
			value := ""
			switch {
			case (a == "-H" || a == "--host") && i+1 < len(args):
				value = args[i+1]
			case strings.HasPrefix(a, "--host="), strings.HasPrefix(a, "-H="):
				_, value, _ = strings.Cut(a, "=")
			case strings.HasPrefix(a, "-H"):
				value = a[2:]
			}
			if isTCP(value) {
				open = append(open, value+" on dockerd's command line")
			}
		}
	}
	if len(open) > 0 {
		return fail(strings.Join(open, ", ")+", without checking who connects: whoever reaches it is root here", "remove the tcp:// address, or turn on TLS with client certificates (tlsverify); "+reload)
	}
	return ok("only local sockets, or TLS with client certificates")
}

func isTCP(addr string) bool {
	return strings.HasPrefix(addr, "tcp://") || strings.HasPrefix(addr, "http://") || hostPortOnly(addr)
}

// hostPortOnly reports whether addr is host:port, which dockerd takes for TCP.
func hostPortOnly(addr string) bool {
	if strings.Contains(addr, "/") {
		return false
	}
	_, port, err := net.SplitHostPort(addr)
	return err == nil && port != ""
}

// commandLines returns the arguments of each running process of that name.
func (h *host) commandLines(name string) [][]string {
	dirs, err := os.ReadDir(h.at("/proc"))
	if err != nil {
		return nil
	}
	var out [][]string
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil || h.line("/proc/"+d.Name()+"/comm") != name {
			continue
		}
		if data, err := h.read("/proc/" + d.Name() + "/cmdline"); err == nil {
			out = append(out, strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"))
		}
	}
	return out
}

func dockerTCPOpen(h *host) verdict {
	for _, l := range h.listeners() {
		if l.Port() == 2375 {
			return fail(fmt.Sprintf("something listens on %s, Docker's port without encryption: whoever reaches it is root here", l), "find it with `ss -ltnp sport = :2375`; if it is Docker, remove its tcp:// address from "+daemonFile+" and its unit file; "+reload)
		}
	}
	return ok("nothing listens on 2375")
}

// socketPath returns the engine's socket, links followed within the root.
func (h *host) socketPath() string {
	path := strings.TrimPrefix(h.DockerHost, "unix://")
	// /var/run is a link to /run nearly everywhere; an absolute link would lead
	// out of a test's root.
	if rest, under := strings.CutPrefix(path, "/var/run/"); under && !h.exists(path) && h.exists("/run/"+rest) {
		return "/run/" + rest
	}
	return path
}

func dockerSocketMode(h *host) verdict {
	path := h.socketPath()
	info, err := os.Stat(h.at(path))
	switch {
	case notThere(err):
		return ok("there is no " + path)
	case err != nil:
		return warn(err.Error(), "run bailey doctor as root")
	case info.Mode().Perm()&0o002 != 0:
		return fail(fmt.Sprintf("%s has mode %04o: every user of this machine is root", path, info.Mode().Perm()), "chmod 660 "+path+"; see that nothing sets it again")
	}
	return okf("%s has mode %04o", path, info.Mode().Perm())
}

func dockerGroup(h *host) verdict {
	info, err := os.Stat(h.at(h.socketPath()))
	if err != nil {
		return ok("there is no socket to look at")
	}
	st, isStat := info.Sys().(*syscall.Stat_t)
	if !isStat || info.Mode().Perm()&0o020 == 0 {
		return ok("only the socket's owner may talk to Docker")
	}
	data, err := h.read("/etc/group")
	if err != nil {
		return warn("the list of groups cannot be read", "check /etc/group")
	}
	name, members := groupOf(string(data), int64(st.Gid))
	if len(members) == 0 {
		return okf("the group %q has no members", name)
	}
	if n := len(members); n > 10 {
		members = append(members[:10:10], fmt.Sprintf("and %d more", n-10))
	}
	return warn(fmt.Sprintf("members of the group %q can become root through Docker, and reach every workspace: %s", name, strings.Join(members, ", ")), "take out whoever is not an administrator: gpasswd -d NAME "+name)
}

// groupOf returns the name and the listed members of a group by its number.
func groupOf(text string, gid int64) (name string, members []string) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 4 && f[2] == strconv.FormatInt(gid, 10) {
			return f[0], strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })
		}
	}
	return strconv.FormatInt(gid, 10), nil
}

func dockerLogs(h *host) verdict {
	driver, _ := h.daemon["log-driver"].(string)
	if driver != "" && driver != "json-file" {
		return ok("log driver " + driver)
	}
	if opts, isMap := h.daemon["log-opts"].(map[string]any); isMap && opts["max-size"] != nil {
		return ok("json-file with a largest size")
	}
	return warn("containers that are not bailey's log into files without a largest size", "add \"log-driver\": \"local\" to "+daemonFile+"; "+reload+"; workspaces have limits of their own already")
}

func dockerRegistries(h *host) verdict {
	list, _ := h.daemon["insecure-registries"].([]any)
	var bad []string
	for _, v := range list {
		name, isText := v.(string)
		if isText && !loopback(name) {
			bad = append(bad, name)
		}
	}
	if len(bad) == 0 {
		return ok("none but this machine itself")
	}
	return warn("images from "+strings.Join(bad, ", ")+" can be swapped on the way", "give the registry a certificate and remove it from \"insecure-registries\" in "+daemonFile+"; "+reload)
}

// loopback reports whether a registry or network is this machine.
func loopback(name string) bool {
	host := name
	if h, _, err := net.SplitHostPort(name); err == nil {
		host = h
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		return p.Addr().IsLoopback() && p.Bits() >= 8
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

func dockerDisk(h *host) verdict {
	if h.Caps.RootDir == "" {
		return ok("where Docker keeps its data is not known")
	}
	return h.room(h.Caps.RootDir, "docker system df shows what takes it; docker image prune removes unused images")
}

// nearestThere returns path or the nearest directory above it that exists.
func (h *host) nearestThere(path string) string {
	for path != "/" && path != "." && !h.exists(path) {
		path = filepath.Dir(path)
	}
	return path
}
