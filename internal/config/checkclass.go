package config

import (
	"fmt"
	"reflect"
	"time"
)

// checkClasses checks every class, and that each is there once.
func (d *decoder) checkClasses() {
	first := map[string]int{}
	for i := range d.cfg.Classes {
		c := &d.cfg.Classes[i]
		at := fmt.Sprintf("classes[%d]", i)
		if d.bad[at] {
			continue
		}
		v := reflect.ValueOf(c).Elem()
		for j := range v.NumField() {
			f := v.Type().Field(j)
			name := at + "." + f.Tag.Get("yaml")
			if f.Tag.Get("required") == "true" && !d.given(name) && !d.broken(name) {
				d.wrong([]string{at}, "the class has no "+f.Tag.Get("yaml"), "every class has one", f.Tag.Get("yaml")+": "+f.Tag.Get("example"))
				delete(d.bad, at) // the rest of it can still be judged
				d.bad[name] = true
			}
			if f.Tag.Get("enum") != "" {
				d.checkEnum(name, f, v.Field(j))
			}
		}
		if d.given(at+".name") && d.checkNameValue(at+".name", c.Name) {
			if j, twice := first[c.Name]; twice {
				d.wrong([]string{at + ".name"}, fmt.Sprintf("a class called %q is there already", c.Name), fmt.Sprintf("it is classes[%d]; people choose by name", j), "another name")
			}
			first[c.Name] = i
		}
		d.checkText(at+".title", c.Title, 80)
		d.checkText(at+".description", c.Description, 500)
		d.checkDigest(at+".image", c.Image, true)
		d.checkLimits(at, c)
		d.checkClassGroups(at, c)
	}
}

// checkClassGroups checks who may use a class. A misspelt group would lock its
// members out silently; a doubled one hints at such a slip.
func (d *decoder) checkClassGroups(at string, c *Class) {
	seen := map[string]bool{}
	for i, g := range c.Groups {
		path := fmt.Sprintf("%s.groups[%d]", at, i)
		if d.checkNameValue(path, g) && seen[g] {
			d.wrong([]string{path}, fmt.Sprintf("group %q is listed twice", g), "once is enough; perhaps the other was meant to be another group", "each group once")
		}
		seen[g] = true
	}
}

// checkLimits checks the sizes of a class, alone and against each other.
func (d *decoder) checkLimits(at string, c *Class) {
	within := func(field string, ok bool, got, why, fix string) {
		if !ok {
			d.wrong([]string{at + "." + field}, got+" is out of range", why, field+": "+fix)
		}
	}
	within("cpus", c.CPUs >= 100 && c.CPUs <= 1024_000, c.CPUs.String(), "a workspace has 0.1 to 1024 cores", "4")
	within("memory", c.Memory >= 256*mib && c.Memory <= 64*tib, c.Memory.String(), "JupyterLab alone needs 256MiB; 64TiB is the most", "8GiB")
	within("pids", c.Pids >= 256 && c.Pids <= 1<<20, fmt.Sprint(c.Pids), "PyTorch with data loaders runs hundreds of threads; the least is 256, the most 1048576", "4096")
	within("gpus", c.GPUs >= 0 && c.GPUs <= 64, fmt.Sprint(c.GPUs), "a workspace has 0 to 64 GPUs", "1")
	within("idle_stop", c.IdleStop == 0 || c.IdleStop >= Duration(time.Minute), c.IdleStop.String(), "less than 1m would stop a workspace while its owner reads; 0 means never", "2h")
	within("start_limit", c.StartLimit >= Duration(5*time.Second) && c.StartLimit <= Duration(time.Hour), c.StartLimit.String(), "a start gets 5s to 1h", "60s")
	// A tmpfs of size 0 has no limit at all.
	within("shm", c.Shm >= 16*mib && c.Shm <= 4*tib, c.Shm.String(), "it lies between 16MiB and 4TiB", min(c.Memory/2, 32*gib).String())
	within("tmp", c.Tmp >= 16*mib && c.Tmp <= 4*tib, c.Tmp.String(), "it lies between 16MiB and 4TiB", min(c.Memory/8, 2*gib).String())

	shm, tmp, memory := at+".shm", at+".tmp", at+".memory"
	switch {
	case c.Shm > c.Memory:
		d.wrong([]string{shm, memory}, fmt.Sprintf("/dev/shm (%s) is larger than the memory (%s)", c.Shm, c.Memory),
			"what lies in /dev/shm is memory of the workspace", "shm: "+(c.Memory/2).String()+", or more memory")
	case c.Shm+c.Tmp >= c.Memory:
		d.wrong([]string{tmp, shm, memory}, fmt.Sprintf("/tmp (%s) and /dev/shm (%s) together leave nothing of the memory (%s)", c.Tmp, c.Shm, c.Memory),
			"what lies in them is memory of the workspace: full, they would kill the kernel", fmt.Sprintf("shm: %s and tmp: %s, or more memory", c.Memory/2, min(c.Memory/8, 2*gib)))
	}
	if c.SelfCheck == "cuda" && c.GPUs == 0 {
		d.wrong([]string{at + ".self_check", at + ".gpus"}, "the class has no GPUs, so a cuda self-check cannot pass", "cuda means that PyTorch sees every leased GPU",
			"self_check: torch, or gpus: 1")
	}
}

// checkQuota checks one set of limits.
func (d *decoder) checkQuota(at string, q Quota) {
	count := func(field string, n *int, most int) {
		if n != nil && (*n < 0 || *n > most) {
			d.wrong([]string{at + "." + field}, fmt.Sprintf("%d is out of range", *n), fmt.Sprintf("it lies between 0 (no limit) and %d", most), d.write(at+"."+field, "3"))
		}
	}
	count("workspaces", q.Workspaces, 100_000)
	count("gpus", q.GPUs, 10_000)
	if q.CPUs != nil && *q.CPUs > 1_000_000_000 {
		d.wrong([]string{at + ".cpus"}, q.CPUs.String()+" is out of range", "it lies between 0 (no limit) and 1000000", d.write(at+".cpus", "8"))
	}
	if q.Memory != nil && *q.Memory > 1<<20*gib {
		d.wrong([]string{at + ".memory"}, q.Memory.String()+" is out of range", "it lies between 0 (no limit) and 1048576GiB", d.write(at+".memory", "32GiB"))
	}
}
