package filter

import (
	"bytes"
	"cmp"
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"sync"

	"github.com/baileyhq/bailey/internal/inspect"
)

// What stands in sources in place of a secret: the mask that people know, and a
// name under which the gateway finds the text again when the file is saved. The
// name is a keyed hash and tells nothing.
var (
	placeholder = regexp.MustCompile(`\[REDACTED:[^\]\s]{1,128}\]⟦dlp:([0-9a-f]{16})⟧`)
	remnant     = []byte("⟦dlp:")
	maskMark    = []byte("[REDACTED:")
)

// The bounds of what is remembered of one run.
const (
	maxUnmasks     = 4096
	maxUnmaskBytes = 4 << 20
)

// unmasks remembers what placeholders stand for. It forgets what was used
// longest ago; then the file on disk tells again.
type unmasks struct {
	mu    sync.Mutex // guards the rest
	by    map[string]*list.Element
	order list.List // of *unmask, newest first
	bytes int
}

type unmask struct {
	id   string
	text []byte
}

func (u *unmasks) put(id string, text []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil {
		u.by = map[string]*list.Element{}
	}
	if e := u.by[id]; e != nil {
		u.order.MoveToFront(e)
		return
	}
	u.by[id] = u.order.PushFront(&unmask{id, bytes.Clone(text)})
	u.bytes += len(text)
	for u.order.Len() > maxUnmasks || u.bytes > maxUnmaskBytes && u.order.Len() > 1 {
		oldest, ok := u.order.Remove(u.order.Back()).(*unmask)
		if !ok {
			return
		}
		delete(u.by, oldest.id)
		u.bytes -= len(oldest.text)
		clear(oldest.text)
	}
}

func (u *unmasks) get(id string) ([]byte, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.by[id]
	if e == nil {
		return nil, false
	}
	u.order.MoveToFront(e)
	m, ok := e.Value.(*unmask)
	return m.text, ok
}

// idOf names a secret for one person's workspace. It is the same after a
// restart, so that a page that was open over it can still save.
func (s *Scope) idOf(text []byte) string {
	h := hmac.New(sha256.New, []byte(s.filter.key.Reveal()))
	for _, part := range [][]byte{[]byte(s.subject.UserID), []byte(s.subject.WorkspaceID), text} {
		_, _ = h.Write(part)
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// source returns the text of a file that is edited, as the editor may see it.
func (w way) source(v *view, text []byte) ([]byte, error) {
	if len(text) < shortest {
		return text, nil
	}
	cfg := w.scan(v, inspect.Document)
	found := v.set.Scan(cfg, text)
	if v.shadow != nil {
		for _, f := range v.shadow.Scan(cfg, text) {
			w.report(f, true)
		}
	}
	how := cmp.Or(v.settings.Sources, Placeholders)
	var hide []inspect.Finding
	for _, f := range found {
		switch {
		case f.Mode == inspect.Block, f.Mode == inspect.Mask && how == BlockSources:
			f.Mode = inspect.Block
			w.report(f, false)
			return nil, &inspect.BlockedError{Rule: f.Rule, Offset: f.Offset}
		case f.Mode == inspect.Mask && how == AlertSources:
			f.Mode = inspect.Alert
		case f.Mode == inspect.Mask:
			hide = append(hide, f)
		}
		w.report(f, false)
	}
	if len(hide) == 0 {
		return text, nil
	}
	out := w.hide(text, hide, how == Placeholders)
	// What is left must hold nothing: a secret that only shows once another is
	// hidden would slip through.
	for _, f := range v.set.Scan(cfg, out) {
		if f.Mode >= inspect.Mask {
			return nil, &inspect.BlockedError{Rule: f.Rule, Offset: f.Offset}
		}
	}
	return out, nil
}

// hide puts masks, with the names of what they hide if it may come back, in
// place of findings.
func (w way) hide(text []byte, found []inspect.Finding, back bool) []byte {
	slices.SortFunc(found, func(a, b inspect.Finding) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(b.Length, a.Length))
	})
	var out []byte
	at := int64(0)
	for i := 0; i < len(found); {
		start, end, rule := found[i].Offset, found[i].Offset+found[i].Length, found[i].Rule
		for i++; i < len(found) && found[i].Offset < end; i++ {
			end = max(end, found[i].Offset+found[i].Length)
		}
		out = append(out, text[at:start]...)
		out = append(out, "[REDACTED:"+rule+"]"...)
		if back {
			id := w.scope.idOf(text[start:end])
			w.scope.unmasks.put(id, text[start:end])
			out = append(out, "⟦dlp:"+id+"⟧"...)
		}
		at = end
	}
	return append(out, text[at:]...)
}

// errPlaceholder says that a text to be saved holds a placeholder that
// nobody knows the meaning of.
var errPlaceholder = &Refusal{Reason: "this text holds a mark of the filter whose meaning is not known here, or not whole; saving it would lose what it stands for: close the file without saving and open it again"}

// restore puts the text back where placeholders are.
func (s *Scope) restore(text []byte) ([]byte, error) {
	if !bytes.Contains(text, remnant) {
		return text, nil
	}
	known := true
	out := placeholder.ReplaceAllFunc(text, func(m []byte) []byte {
		id := m[len(m)-len("0123456789abcdef⟧") : len(m)-len("⟧")]
		got, ok := s.unmasks.get(string(id))
		known = known && ok
		return got
	})
	if !known || bytes.Contains(out, remnant) {
		return nil, errPlaceholder
	}
	return out, nil
}

// NeedsOriginal reports whether a request was refused because it holds a
// placeholder that the file on disk may explain.
func NeedsOriginal(err error) bool { return errors.Is(err, errPlaceholder) }
