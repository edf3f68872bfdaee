package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// The numbers a Spec must stay within. Memory and disk sizes are in bytes.
const (
	MinUID          = 20000 // below are the host's own accounts
	MaxUID          = 59999
	MinCPUMillis    = 100
	MaxCPUMillis    = 4096 * 1000
	MinMemoryBytes  = 128 << 20 // less does not start a Python kernel
	MaxMemoryBytes  = 64 << 40
	MinTmpfsBytes   = 1 << 20
	MaxTmpfsBytes   = 4 << 40
	MinPids         = 128
	MaxPids         = 1 << 20
	MaxGPUs         = 64
	MaxEnv          = 128
	MaxEnvValue     = 32 << 10
	MaxStopGrace    = 10 * time.Minute
	MaxSecrets      = 256
	MaxSecretsBytes = 4 << 20 // a quarter of /run, where they are inside
	minTokenLen     = 16
	maxTokenLen     = 512
)

var (
	ulidRE     = regexp.MustCompile(`^[0-7][0-9a-hjkmnp-tv-z]{25}$`)
	imageRE    = regexp.MustCompile(`^(?:[a-z0-9][a-z0-9._/:-]{0,254}@)?sha256:[0-9a-f]{64}$`)
	gpuRE      = regexp.MustCompile(`^(?:GPU|MIG)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	basePathRE = regexp.MustCompile(`^/(?:[A-Za-z0-9._~-]+/)*$`)
	tokenRE    = regexp.MustCompile(`^[A-Za-z0-9_.~-]+$`)
)

// Defaulted returns s with every zero value that has a default in the strict
// profile replaced by it: sizes, pids, base path and stop grace. Engines call
// it before anything else, so that a Spec with and without the default spelled
// out is the same Spec.
func (s Spec) Defaulted() Spec {
	p := Strict()
	s.ShmBytes = cmp.Or(s.ShmBytes, min(s.MemoryBytes/2, p.MaxShmBytes))
	s.TmpBytes = cmp.Or(s.TmpBytes, min(s.MemoryBytes/2, p.TmpBytes))
	s.Pids = cmp.Or(s.Pids, p.Pids)
	s.BasePath = cmp.Or(s.BasePath, "/")
	s.StopGrace = cmp.Or(s.StopGrace, p.StopGrace)
	s.Network = cmp.Or(s.Network, NetworkNone)
	return s
}

// Check returns nil when every field of s, after its defaults, is within the
// grammar and the range that an engine may be given. Otherwise it returns a
// [bailey.Error] of kind Invalid for the first field that is not. Engines
// refuse a Spec that does not pass before they touch anything.
func (s Spec) Check() error {
	s = s.Defaulted()
	for _, id := range []struct{ field, value string }{
		{"run", s.Run}, {"workspace", s.Workspace}, {"owner", s.Owner}, {"volume", s.VolumeID},
	} {
		if err := CheckID(id.field, id.value); err != nil {
			return err
		}
	}
	if err := bailey.CheckName("user", s.Name); err != nil {
		return err
	}
	if err := bailey.CheckName("class", s.Class); err != nil {
		return err
	}
	if err := CheckImage(s.Image); err != nil {
		return err
	}
	if err := CheckUID(s.UID); err != nil {
		return err
	}
	if err := s.checkSizes(); err != nil {
		return err
	}
	if err := checkGPUs(s.GPUs); err != nil {
		return err
	}
	if !s.Network.Valid() {
		return invalid(fmt.Sprintf("network mode %q does not exist", shorten(string(s.Network))), "use none, proxied or bridge")
	}
	if err := checkBasePath(s.BasePath); err != nil {
		return err
	}
	if token := s.JupyterToken.Reveal(); len(token) < minTokenLen || len(token) > maxTokenLen || !tokenRE.MatchString(token) {
		return invalid("the run's Jupyter token is missing or malformed", "make one with secret.Random(32)")
	}
	if err := checkSecrets(s.Secrets); err != nil {
		return err
	}
	return checkEnv(s.Env)
}

// checkSecrets checks names and sizes; the values may be any bytes.
func checkSecrets(secrets map[string]secret.Value) error {
	total := 0
	for name, value := range secrets {
		if err := bailey.CheckSecretName(name); err != nil {
			return err
		}
		total += len(value.Reveal())
	}
	if len(secrets) > MaxSecrets || total > MaxSecretsBytes {
		return invalid(fmt.Sprintf("%d secrets with %d bytes are more than a workspace can have", len(secrets), total),
			fmt.Sprintf("%d secrets and %d bytes are the most; give some of them to one class only", MaxSecrets, MaxSecretsBytes))
	}
	return nil
}

// checkSizes checks the numbers of a defaulted Spec.
func (s Spec) checkSizes() error {
	for _, n := range []struct {
		field         string
		got, low, top int64
	}{
		{"cpu (thousandths of a core)", s.CPUMillis, MinCPUMillis, MaxCPUMillis},
		{"memory", s.MemoryBytes, MinMemoryBytes, MaxMemoryBytes},
		{"shared memory", s.ShmBytes, MinTmpfsBytes, MaxTmpfsBytes},
		{"size of /tmp", s.TmpBytes, MinTmpfsBytes, MaxTmpfsBytes},
		{"pids", s.Pids, MinPids, MaxPids},
		{"stop grace (ns)", int64(s.StopGrace), int64(time.Second), int64(MaxStopGrace)},
	} {
		if n.got < n.low || n.got > n.top {
			return invalid(fmt.Sprintf("%s is %d, which is outside %d to %d", n.field, n.got, n.low, n.top), "change the class")
		}
	}
	return nil
}

// CheckID returns nil when id is a lower-case ULID as [bailey.NewID] makes
// them. Ids become host paths and container names, so nothing else may pass.
func CheckID(field, id string) error {
	if ulidRE.MatchString(id) {
		return nil
	}
	return invalid(fmt.Sprintf("%s id %q is not a ULID", field, shorten(id)), "")
}

// CheckImage returns nil when ref names an image by content: "sha256:<64 hex>"
// or "name@sha256:<64 hex>". A tag can be moved after it was approved.
func CheckImage(ref string) error {
	name, _, byName := strings.Cut(ref, "@")
	if imageRE.MatchString(ref) && (!byName || path.Clean(name) == name) {
		return nil
	}
	return invalid(fmt.Sprintf("image %q is not a digest", shorten(ref)), "images run by digest only: sha256:<64 hex digits>")
}

// CheckUID returns nil when uid is in the tenants' range.
func CheckUID(uid int) error {
	if uid >= MinUID && uid <= MaxUID {
		return nil
	}
	return invalid(fmt.Sprintf("uid %d is outside %d to %d", uid, MinUID, MaxUID), "")
}

// CheckGPU returns nil when uuid is a GPU's or MIG slice's UUID as the driver
// spells it: "GPU-…" or "MIG-…", lower-case hex.
func CheckGPU(uuid string) error {
	if gpuRE.MatchString(uuid) {
		return nil
	}
	return invalid(fmt.Sprintf("%q is not the UUID of a GPU", shorten(uuid)), "nvidia-smi -L prints them: GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
}

func checkGPUs(uuids []string) error {
	if len(uuids) > MaxGPUs {
		return invalid(fmt.Sprintf("%d GPUs are more than %d", len(uuids), MaxGPUs), "")
	}
	seen := map[string]bool{}
	for _, uuid := range uuids {
		if err := CheckGPU(uuid); err != nil {
			return err
		}
		if seen[uuid] {
			return invalid(fmt.Sprintf("GPU %s is named twice", uuid), "")
		}
		seen[uuid] = true
	}
	return nil
}

func checkBasePath(p string) error {
	if len(p) <= 255 && basePathRE.MatchString(p) && !slices.ContainsFunc(strings.Split(p, "/"), func(seg string) bool { return seg == "." || seg == ".." }) {
		return nil
	}
	return invalid(fmt.Sprintf("base path %q is not valid", shorten(p)), `it begins and ends with "/" and has letters, digits and ._~- between`)
}

func checkEnv(env map[string]string) error {
	if len(env) > MaxEnv {
		return invalid(fmt.Sprintf("%d environment variables are more than %d", len(env), MaxEnv), "")
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if err := CheckEnv(name, env[name]); err != nil {
			return err
		}
	}
	return nil
}

// Hash returns a hex digest of everything in s that makes a container what it
// is, except secrets: the same for equal Specs in any version of this program
// that knows the same fields, different as soon as one of them differs.
func (s Spec) Hash() string {
	s = s.Defaulted()
	gpus := slices.Sorted(slices.Values(s.GPUs))
	network := s.Network
	if network == NetworkNone {
		network = "" // left out, so that containers from before there was a choice keep their hash
	}
	// encoding/json sorts map keys and keeps the order of fields: one text per Spec.
	text, err := json.Marshal(struct {
		Profile                                    string
		Run, Workspace, Owner, Name, Class, Image  string
		UID                                        int
		VolumeID                                   string
		CPUMillis, Memory, Shm, Tmp, Pids, GraceNS int64
		GPUs                                       []string
		BasePath                                   string
		Env                                        map[string]string
		Network                                    Network `json:",omitempty"`
	}{
		ProfileVersion, s.Run, s.Workspace, s.Owner, s.Name, s.Class, s.Image,
		s.UID, s.VolumeID, s.CPUMillis, s.MemoryBytes, s.ShmBytes, s.TmpBytes, s.Pids, int64(s.StopGrace),
		gpus, s.BasePath, s.Env, network,
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func invalid(msg, hint string) error {
	return &bailey.Error{Kind: bailey.Invalid, Msg: msg, Hint: hint}
}

// shorten keeps a stranger's text short; callers quote it with %q.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
