package config

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/baileyhq/bailey"
)

// Live is the part of the configuration that may change while the server runs,
// as one snapshot that is swapped whole: whoever reads sees the old or the new
// configuration, never a mixture. Its methods may be called concurrently. It
// is what workspaces ask for their settings.
type Live struct {
	fallback []bailey.Class
	now      atomic.Pointer[settings]
}

// settings is one snapshot. It is never changed.
type settings struct {
	data   Data
	byName map[string]int // index into data.Classes
}

// NewLive returns a Live that knows no classes and no limits until [Live.Set].
// The fallback classes ([DefaultClasses]) hold whenever a configuration has
// none of its own.
func NewLive(fallback []bailey.Class) *Live {
	l := &Live{fallback: slices.Clone(fallback)}
	l.now.Store(&settings{})
	return l
}

// Set puts cfg in force. resolve returns the digest of a catalogue name that
// the configuration does not pin, or "" if there is no such image, and is
// called before anything changes; nil resolves nothing.
func (l *Live) Set(cfg *Config, resolve func(name string) (digest string)) {
	s := &settings{data: cfg.Data(), byName: map[string]int{}}
	if len(s.data.Classes) == 0 {
		s.data.Classes = cloneClasses(l.fallback)
		for i := range s.data.Classes {
			c := &s.data.Classes[i]
			c.Digest = s.data.Images[c.Image]
		}
	}
	for i := range s.data.Classes {
		c := &s.data.Classes[i]
		if c.Digest == "" && resolve != nil {
			c.Digest = resolve(c.Image)
		}
		s.byName[c.Name] = i
	}
	l.now.Store(s)
}

// Classes returns every class, in the order configured. The slice is the
// caller's.
func (l *Live) Classes() []bailey.Class { return cloneClasses(l.now.Load().data.Classes) }

// Class returns the class of that name, if there is one.
func (l *Live) Class(name string) (bailey.Class, bool) {
	s := l.now.Load()
	i, ok := s.byName[name]
	if !ok {
		return bailey.Class{}, false
	}
	return cloneClass(s.data.Classes[i]), true
}

// QuotaFor returns the user's quota: their own entry, with the default's
// limits where it is silent, or else the default. Administrators have no
// exception: a stolen administrator's session must not take the whole machine.
func (l *Live) QuotaFor(user bailey.User) bailey.Quota {
	d := &l.now.Load().data
	if q, ok := d.Users[user.Name]; ok {
		return q
	}
	return d.Default
}

// GroupQuotas returns the quotas of those of the user's groups that have one.
func (l *Live) GroupQuotas(user bailey.User) map[string]bailey.Quota {
	d := &l.now.Load().data
	out := map[string]bailey.Quota{}
	for _, g := range user.Groups {
		if q, ok := d.Groups[g]; ok {
			out[g] = q
		}
	}
	return out
}

func cloneClass(c bailey.Class) bailey.Class {
	c.Groups = slices.Clone(c.Groups)
	c.Env = maps.Clone(c.Env)
	return c
}

func cloneClasses(in []bailey.Class) []bailey.Class {
	out := slices.Clone(in)
	for i := range out {
		out[i] = cloneClass(out[i])
	}
	return out
}

// BuiltImages returns the names of the images that bailey's own recipes make.
func BuiltImages() []string {
	return []string{"notebook", "pytorch", "cuda", "pytorch-cuda", "pytorch-gpu"}
}

// DefaultClasses returns classes for a configuration that has none: "notebook"
// and "pytorch" when such images exist, "pytorch-gpu" when the machine has
// GPUs, and one for each other image, under its name. images are the catalogue names found; cpus and memory are the
// machine's. Each class takes at most half of the machine, so that the second
// person still gets in; demo makes them small enough for a laptop.
func DefaultClasses(images []string, cpus int, memory int64, gpus int, demo bool) []bailey.Class {
	half := max(Bytes(memory)/2, 256*mib) &^ (mib - 1)
	class := func(name, title, description, image, check string, most Bytes) bailey.Class {
		c := defaultClass()
		c.Name, c.Title, c.Description, c.Image, c.SelfCheck = name, title, description, image, check
		c.CPUs = CPUs(1000 * min(max(cpus/2, 1), 8))
		c.Memory = min(half, most)
		c.complete(func(field string) bool { return field == "title" || field == "self_check" })
		out := c.bailey()
		out.Reach = Egress{}.reach(c)
		return out
	}
	notebook, pytorch := 16*gib, 16*gib
	if demo {
		notebook, pytorch = 2*gib, 4*gib
	}
	var all []bailey.Class
	if slices.Contains(images, "notebook") {
		all = append(all, class("notebook", "Notebook", "JupyterLab and Python.", "notebook", "python", notebook))
	}
	if slices.Contains(images, "pytorch") {
		all = append(all, class("pytorch", "PyTorch", "JupyterLab and PyTorch on the CPU.", "pytorch", "torch", pytorch))
	}
	// An image built for CUDA goes first; PyTorch without CUDA says so in its
	// self-check, which is better than no class that leases a GPU at all.
	image := slices.IndexFunc([]string{"cuda", "pytorch-cuda", "pytorch-gpu", "pytorch"}, func(name string) bool { return slices.Contains(images, name) })
	if gpus > 0 && image >= 0 {
		name := []string{"cuda", "pytorch-cuda", "pytorch-gpu", "pytorch"}[image]
		// A GPU's share of the machine: feeding it takes more than a notebook.
		share := max(pytorch, min(128*gib, Bytes(memory)/4*3/Bytes(gpus))&^(mib-1))
		c := class("pytorch-gpu", "PyTorch with a GPU", "JupyterLab and PyTorch with one GPU of your own.", name, "cuda", share)
		c.GPUs = 1
		all = append(all, c)
	}
	for _, name := range images {
		if !slices.Contains(BuiltImages(), name) {
			all = append(all, class(name, name, "From the catalogue of images.", name, "python", notebook))
		}
	}
	return all
}
