package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Reference names an image: where it is, and which it is.
type Reference struct {
	Repository string // with its registry: "docker.io/library/debian"
	Tag        string // may be empty
	Digest     string // "sha256:…" in lower-case hex, may be empty
}

// The grammar of the distribution specification, and its length limits.
var (
	hostPattern = regexp.MustCompile(`\A(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?\z`)
	pathPattern = regexp.MustCompile(`\A[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\z`)
	tagPattern  = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\z`)
)

// ParseReference reads an image name the way docker does: a name without a
// registry is on docker.io, a bare one in its library. There is no default
// tag: "debian" has none.
func ParseReference(s string) (Reference, error) {
	var r Reference
	rest := s
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		if _, err := ParseDigest(digest); err != nil {
			return Reference{}, fmt.Errorf("read image name %q: %w", s, err)
		}
		r.Digest, rest = digest, name
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') && !strings.HasSuffix(rest, "]") {
		r.Tag, rest = rest[i+1:], rest[:i]
		if !tagPattern.MatchString(r.Tag) {
			return Reference{}, fmt.Errorf("read image name %q: %q is no tag", s, r.Tag)
		}
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, path = "docker.io", rest
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if !hostPattern.MatchString(host) || !pathPattern.MatchString(path) || len(host)+len(path) >= 255 {
		return Reference{}, fmt.Errorf("read image name %q: not of the form [registry/]repository[:tag][@sha256:…]", s)
	}
	r.Repository = strings.ToLower(host) + "/" + path
	return r, nil
}

// String returns the reference as it is typed.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Registry returns the host, with its port, that serves the repository.
func (r Reference) Registry() string {
	host, _, _ := strings.Cut(r.Repository, "/")
	return host
}

// Path returns the repository's name inside its registry.
func (r Reference) Path() string {
	_, path, _ := strings.Cut(r.Repository, "/")
	return path
}

// ParseDigest returns the 32 bytes of a "sha256:…" digest. Other algorithms
// and upper-case letters are refused: one image has one name.
func ParseDigest(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(text) != 64 || strings.ToLower(text) != text {
		return nil, fmt.Errorf("%q is no sha256 digest", s)
	}
	sum, err := hex.DecodeString(text)
	if err != nil {
		return nil, errors.New("a digest with letters that are no hex digits")
	}
	return sum, nil
}
