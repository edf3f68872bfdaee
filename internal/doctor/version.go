package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A version is the upstream number and what a distribution put behind it.
type version struct {
	major, minor, patch int
	rest                string // "+dfsg1", "-rc.1"
	known               bool
}

var versionRE = regexp.MustCompile(`^(?:[0-9]+:)?v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(.*)$`)

// parseVersion reads versions as programs and packages spell them. What is not
// one is the unknown version.
func parseVersion(text string) version {
	m := versionRE.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return version{}
	}
	n := func(s string) int { v, _ := strconv.Atoi(s); return v } // digits, at most six; none is 0
	return version{n(m[1]), n(m[2]), n(m[3]), m[4], true}
}

// String returns the upstream number.
func (v version) String() string {
	if !v.known {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
}

// compare orders by the upstream number; a release candidate comes before its
// release.
func (v version) compare(w version) int {
	pre := func(x version) int {
		if strings.HasPrefix(x.rest, "-rc") || strings.HasPrefix(x.rest, "~rc") || strings.HasPrefix(x.rest, "-beta") || strings.HasPrefix(x.rest, "-alpha") {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch), cmp.Compare(pre(v), pre(w)))
}

// before reports whether v is older than the version in text.
func (v version) before(text string) bool { return v.compare(parseVersion(text)) < 0 }

// distribution reports whether a distribution built it and may have put fixes
// into it that its number does not show.
func (v version) distribution() bool {
	return distroRE.MatchString(v.rest)
}

var distroRE = regexp.MustCompile(`dfsg|\+ds|[-~+.]deb[0-9]|ubuntu|\.el[0-9]|\.fc[0-9]|\.amzn|suse|~ds`)

// reaches reports whether v has the fixes of floors, one version per branch:
// at least its branch's floor, or on a newer branch than all of them.
func (v version) reaches(floors ...string) bool {
	all := make([]version, len(floors))
	for i, f := range floors {
		all[i] = parseVersion(f)
	}
	slices.SortFunc(all, version.compare)
	for _, f := range all {
		if f.major == v.major && f.minor == v.minor {
			return v.compare(f) >= 0
		}
	}
	return v.compare(all[len(all)-1]) >= 0
}
