package engine

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// envRE is the grammar of names: what every shell can spell, upper-case, plus
// the lower-case proxy variables that tools insist on.
var envRE = regexp.MustCompile(`^(?:[A-Z][A-Z0-9_]{0,63}|(?:http|https|ftp|no|all)_proxy)$`)

// deniedEnvPrefixes are families of names that decide which devices a
// container gets, what the dynamic loader does, or that are ours to set.
func deniedEnvPrefixes() []string {
	return []string{
		"NVIDIA_",   // read by the container runtime's hooks: would grant devices
		"CUDA_MPS_", // would point at another tenant's MPS daemon
		"LD_", "GLIBC_",
		"DOCKER_", "CONTAINERD_", "RUNC_", "_LIBCONTAINER_",
		"BAILEY_", "JUPYTER_TOKEN",
		"BASH_FUNC_",
		"TRITON_CACHE_", "TORCHINDUCTOR_CACHE_",
	}
}

// deniedEnv are single names: the same families, and those the profile sets.
func deniedEnv() []string {
	return []string{
		"CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
		"GCONV_PATH", "LOCPATH", "NLSPATH", "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_HOST_CONF", "GETCONF_DIR", "NIS_PATH",
		"BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND",
		"PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PERL5OPT", "PERL5DB", "RUBYOPT", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
		"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "HOSTNAME", "PWD", "UID", "GID", "EUID",
		"XDG_CACHE_HOME", "PIP_CACHE_DIR", "HF_HOME", "MPLCONFIGDIR", "OMP_NUM_THREADS",
	}
}

// EnvAllowed reports whether a variable of this name may be set in a Spec or an
// ExecSpec. Names of shell grammar are allowed, except those that select GPUs,
// steer the loader or an interpreter's start, or belong to the profile.
//
// None of them would break the container's walls: what runs inside may set
// what it likes for its own children. The rule keeps configuration and clients
// from undoing, for everybody or for the first process, what the profile says.
func EnvAllowed(name string) bool {
	if !envRE.MatchString(name) || slices.Contains(deniedEnv(), name) {
		return false
	}
	return !slices.ContainsFunc(deniedEnvPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) })
}

// CheckEnv returns nil when EnvAllowed says so and the value can stand in an
// environment: no NUL, at most MaxEnvValue bytes. The error never repeats the
// value.
func CheckEnv(name, value string) error {
	if !EnvAllowed(name) {
		return invalid(fmt.Sprintf("environment variable %q may not be set", shorten(name)),
			"use a name of A-Z, 0-9 and _ that does not select GPUs, steer the loader, or belong to the workspace profile")
	}
	if strings.ContainsRune(value, 0) || len(value) > MaxEnvValue {
		return invalid(fmt.Sprintf("the value of environment variable %s is too long or has a NUL byte", name), "")
	}
	return nil
}

// Check returns nil when e may run: a command, a clean absolute directory or
// none, allowed environment. The error is a [bailey.Error] of kind Invalid.
func (e ExecSpec) Check() error {
	if len(e.Cmd) == 0 || e.Cmd[0] == "" {
		return invalid("there is no command to run", "")
	}
	for _, arg := range e.Cmd {
		if strings.ContainsRune(arg, 0) {
			return invalid("the command has a NUL byte in it", "")
		}
	}
	if e.Dir != "" && (!strings.HasPrefix(e.Dir, "/") || strings.ContainsRune(e.Dir, 0)) {
		return invalid(fmt.Sprintf("directory %q is not an absolute path", shorten(e.Dir)), "")
	}
	if len(e.Env) > MaxEnv {
		return invalid(fmt.Sprintf("%d environment variables are more than %d", len(e.Env), MaxEnv), "")
	}
	for _, kv := range e.Env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return invalid(fmt.Sprintf("environment entry %q has no \"=\"", shorten(name)), "")
		}
		if err := CheckEnv(name, value); err != nil {
			return err
		}
	}
	return nil
}
