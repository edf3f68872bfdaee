// Package gitrepo reads a git repository by running git: what is about to be
// committed, and everything that ever was. A repository is foreign data: its
// own settings, which may name programs to run, are kept from doing so.
package gitrepo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNone is returned by [Open] for a directory that is in no repository.
var ErrNone = errors.New("no git repository")

// ErrNoGit is returned by [Open] when git is not installed.
var ErrNoGit = errors.New("git is not installed")

// A Repo is a git repository with a working tree. It may be used concurrently.
type Repo struct {
	Root string // the top of the working tree
}

// Open returns the repository that holds dir. The error is [ErrNone] or
// [ErrNoGit] where it is one of them.
func Open(ctx context.Context, dir string) (*Repo, error) {
	r := &Repo{Root: dir}
	out, err := r.run(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", ErrNoGit, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	r.Root = strings.TrimSuffix(string(out), "\n")
	return r, nil
}

// quiet are settings that keep a repository from running programs of its own.
var quiet = []string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false", "-c", "diff.external=", "-c", "log.showSignature=false"}

// command is git with arguments, in the repository.
func (r *Repo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", append(append([]string{"--no-pager", "-C", r.Root}, quiet...), args...)...) //nolint:gosec // the program is git; the arguments follow --
	cmd.Env = append(cmd.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "LC_ALL=C")
	return cmd
}

// run returns what git printed. The error holds what it complained about.
func (r *Repo) run(ctx context.Context, args ...string) ([]byte, error) {
	out, err := r.command(ctx, args...).Output()
	return out, explain(args[0], err)
}

// explain adds what git said to its exit status.
func explain(what string, err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if msg := strings.TrimSpace(string(exit.Stderr)); msg != "" {
			return fmt.Errorf("git %s: %.300s: %w", what, msg, err)
		}
	}
	if err != nil {
		return fmt.Errorf("git %s: %w", what, err)
	}
	return nil
}

// Path returns where git keeps a file of its own, such as hooks/pre-commit or
// info/attributes, as the repository's settings have it.
func (r *Repo) Path(ctx context.Context, name string) (string, error) {
	// Not by command: core.hooksPath is what is asked for.
	out, err := exec.CommandContext(ctx, "git", "-C", r.Root, "rev-parse", "--git-path", name).Output() //nolint:gosec // the program is git, the name is ours
	if err != nil {
		return "", explain("rev-parse", err)
	}
	path := strings.TrimSuffix(string(out), "\n")
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.Root, path)
	}
	return path, nil
}

// Configure sets a variable of the repository's own settings; an empty value
// removes it.
func (r *Repo) Configure(ctx context.Context, key, value string) error {
	if value != "" {
		_, err := r.run(ctx, "config", "--local", key, value)
		return err
	}
	_, err := r.run(ctx, "config", "--local", "--unset-all", key)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 5 {
		return nil // it was not set
	}
	return err
}

// A Change is a file as it is about to be committed.
type Change struct {
	Path  string   // below the root, with slashes
	Blob  string   // the object's name
	Added []Lines  // the lines that are new; empty for a file that only moved
	Mode  FileMode // what kind of thing it is
}

// Lines is a range of lines, counted from 1, both ends included.
type Lines struct{ From, To int }

// A FileMode is git's mode of a tree entry.
type FileMode string

// IsFile reports whether the entry is a regular file: no link, no submodule.
func (m FileMode) IsFile() bool { return m == "100644" || m == "100755" }

// Staged returns what differs between the index and the last commit. Deleted
// files are left out.
func (r *Repo) Staged(ctx context.Context) ([]Change, error) {
	raw, err := r.run(ctx, "diff", "--cached", "--raw", "-z", "--no-renames", "--abbrev=64", "--diff-filter=d", "--no-ext-diff", "--no-textconv")
	if err != nil {
		return nil, err
	}
	fields := strings.Split(string(raw), "\x00")
	var changes []Change
	for i := 0; i+1 < len(fields); i += 2 {
		// :100644 100644 <old> <new> M
		meta := strings.Fields(strings.TrimPrefix(fields[i], ":"))
		if len(meta) != 5 {
			return nil, fmt.Errorf("git diff: %.80q is no entry", fields[i])
		}
		changes = append(changes, Change{Path: fields[i+1], Blob: meta[3], Mode: FileMode(meta[1])})
	}
	for i := range changes {
		if changes[i].Mode.IsFile() {
			if changes[i].Added, err = r.added(ctx, changes[i].Path); err != nil {
				return nil, err
			}
		}
	}
	return changes, nil
}

// added returns the lines of a file that the index has and the last commit
// has not.
func (r *Repo) added(ctx context.Context, path string) ([]Lines, error) {
	out, err := r.run(ctx, "diff", "--cached", "--unified=0", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--text", "--", ":(top,literal)"+path)
	if err != nil {
		return nil, err
	}
	return hunks(out), nil
}

// hunks returns the new lines of a unified diff without context. The counts of
// each header say how many lines follow, so that a line that looks like a
// header is none.
func hunks(diff []byte) []Lines {
	var added []Lines
	skip := 0
	for line := range bytes.Lines(diff) {
		if skip > 0 && len(line) > 0 && line[0] != '\\' {
			skip--
			continue
		}
		old, cur, ok := header(string(line))
		if !ok {
			continue
		}
		skip = old.n + cur.n
		if cur.n > 0 {
			added = append(added, Lines{cur.from, cur.from + cur.n - 1})
		}
	}
	return added
}

type hunk struct{ from, n int }

// header reads "@@ -1,2 +3,4 @@".
func header(line string) (old, cur hunk, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || f[0] != "@@" || f[3] != "@@" {
		return old, cur, false
	}
	read := func(text, sign string) (hunk, bool) {
		text, ok := strings.CutPrefix(text, sign)
		from, n, counted := strings.Cut(text, ",")
		h := hunk{n: 1}
		var err, err2 error
		h.from, err = strconv.Atoi(from)
		if counted {
			h.n, err2 = strconv.Atoi(n)
		}
		return h, ok && err == nil && err2 == nil && h.from >= 0 && h.n >= 0 && h.from < 1<<30 && h.n < 1<<30
	}
	old, ok1 := read(f[1], "-")
	cur, ok2 := read(f[2], "+")
	return old, cur, ok1 && ok2
}

// A Blob is a file's content as it once was committed.
type Blob struct {
	Name string
	Path string // one of the paths it had
}

// Blobs returns every object in the history of all branches, tags and notes
// that is a file, each once.
func (r *Repo) Blobs(ctx context.Context) ([]Blob, error) {
	out, err := r.run(ctx, "rev-list", "--objects", "--all", "--filter=object:type=blob", "--filter-provided-objects")
	if err != nil {
		return nil, err
	}
	var blobs []Blob
	for line := range strings.Lines(string(out)) {
		name, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		blobs = append(blobs, Blob{name, path})
	}
	return blobs, nil
}

// A Message is the text of a commit.
type Message struct {
	Commit string
	Text   []byte
}

// Messages returns what was written about every commit.
func (r *Repo) Messages(ctx context.Context) ([]Message, error) {
	out, err := r.run(ctx, "log", "--all", "--format=%H%x00%an <%ae>%n%B%x00")
	if err != nil {
		return nil, err
	}
	fields := bytes.Split(out, []byte{0})
	var messages []Message
	for i := 0; i+1 < len(fields); i += 2 {
		messages = append(messages, Message{strings.TrimSpace(string(fields[i])), fields[i+1]})
	}
	return messages, nil
}

// FirstCommit returns the oldest commit that has the blob, or "" when none
// says so (a merge made it, a tag holds it).
func (r *Repo) FirstCommit(ctx context.Context, blob string) (string, error) {
	out, err := r.run(ctx, "log", "--all", "--format=%H", "--find-object="+blob)
	if err != nil {
		return "", err
	}
	commits := strings.Fields(string(out))
	if len(commits) == 0 {
		return "", nil
	}
	return commits[len(commits)-1], nil
}

// Read calls visit for each of the objects, in order, with its content, which
// is visit's until it returns. An object larger than limit comes as nil.
func (r *Repo) Read(ctx context.Context, names []string, limit int64, visit func(i int, size int64, content []byte) error) (err error) {
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := r.command(ctx, "cat-file", "--batch")
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("git cat-file: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("git cat-file: %w", err)
	}
	defer func() {
		cancel()
		if werr := cmd.Wait(); err == nil && ctx.Err() == nil {
			err = explain("cat-file", werr)
		}
	}()
	in := bufio.NewReaderSize(stdout, 1<<16)
	for i, name := range names {
		head, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("git cat-file: read %s: %w", name, err)
		}
		f := strings.Fields(head) // name, type, size
		if len(f) != 3 {
			return fmt.Errorf("git cat-file: %.80s", strings.TrimSpace(head))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("git cat-file: %.80s", strings.TrimSpace(head))
		}
		var content []byte
		if size <= limit {
			content = make([]byte, size)
			_, err = io.ReadFull(in, content)
		} else {
			_, err = io.CopyN(io.Discard, in, size)
		}
		if err == nil {
			_, err = in.Discard(1) // the line end behind the content
		}
		if err != nil {
			return fmt.Errorf("git cat-file: read %s: %w", name, err)
		}
		if err := visit(i, size, content); err != nil {
			return err
		}
	}
	return nil
}
