package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Names in the state directory.
const (
	volumesDir = "volumes"
	runsDir    = "run"
	sockDir    = "sock"   // in a run: the tenant's, hostile
	confDir    = "conf"   // in a run: ours, read-only inside
	agentDir   = "agent"  // in conf: becomes /etc/bailey
	egressDir  = "egress" // in a run of mode proxied: ours, read-only inside
	idFile     = "container"
	newPrefix  = ".new-"
	delPrefix  = ".del-"
)

// openState makes Root/volumes and Root/run and returns them open. All later
// work goes through these two descriptors and never follows a symbolic link,
// because below them are files that tenants write.
func openState(root string) (volumes, runs *os.File, err error) {
	if !filepath.IsAbs(root) {
		return nil, nil, fmt.Errorf("state directory %q is not absolute", root)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, nil, err
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, nil, err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, nil, fmt.Errorf("state directory %s has mode %04o: others could replace what is in it (chmod 0700)", root, info.Mode().Perm())
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close() //nolint:errcheck // read only
	if volumes, err = makeDirAt(dir, volumesDir, 0o700, -1); err != nil {
		return nil, nil, err
	}
	if runs, err = makeDirAt(dir, runsDir, 0o700, -1); err != nil {
		return nil, nil, errors.Join(err, volumes.Close())
	}
	return volumes, runs, nil
}

// openDirAt opens a directory inside parent; a symbolic link in its place is
// an error.
func openDirAt(parent *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name)), nil
}

// makeDirAt makes a directory inside parent, or takes the one that is there,
// and gives it exactly this mode and, unless negative, this owner. Parent must
// be a directory that no tenant can write.
func makeDirAt(parent *os.File, name string, mode uint32, uid int) (*os.File, error) {
	err := unix.Mkdirat(int(parent.Fd()), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkdir", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	dir, err := openDirAt(parent, name)
	if err != nil {
		return nil, err
	}
	if uid >= 0 {
		err = dir.Chown(uid, uid)
	}
	if err == nil {
		err = dir.Chmod(os.FileMode(mode))
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// writeFileAt puts a whole file into dir under name, with exactly this mode and
// owner, atomically: readers see the old file, or the new one, never a part.
func writeFileAt(dir *os.File, name string, data []byte, mode os.FileMode, uid int) error {
	tmp := newPrefix + name + "-" + rand.Text()
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(uid, uid)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync() // a crash must not leave an empty file that a restart would believe
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), tmp, int(dir.Fd()), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreMissing(unix.Unlinkat(int(dir.Fd()), tmp, 0)))
	}
	return nil
}

// statAt describes an entry of dir, without following links.
func statAt(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &os.PathError{Op: "stat", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return st, nil
}

// removeTree removes parent/name with everything in it; that it is not there
// is no error. What is inside was written by a tenant, so: no link is ever
// followed, the tree disappears from its place before its contents do, and the
// depth does not matter. (Directories below are moved up next to each other
// instead of being descended into: a tree of 100,000 levels needs two open
// descriptors, not 100,000.)
func removeTree(ctx context.Context, parent *os.File, name string) error {
	top := name
	if !strings.HasPrefix(name, delPrefix) {
		top = delPrefix + name + "-" + rand.Text()
		err := unix.Renameat(int(parent.Fd()), name, int(parent.Fd()), top)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "remove", Path: filepath.Join(parent.Name(), name), Err: err}
		}
	}
	if err := removeEntry(parent, top); !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	dir, err := openDirAt(parent, top)
	if err != nil {
		return ignoreMissing(err)
	}
	defer dir.Close() //nolint:errcheck // a directory, read only
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := emptyOnce(dir, dir)
		if err != nil {
			return err
		}
		if !more {
			return removeEntry(parent, top)
		}
	}
}

// removeEntry removes a file, a link or an empty directory; ENOTEMPTY means
// that it is a directory with something in it.
func removeEntry(dir *os.File, name string) error {
	fd := int(dir.Fd())
	err := unix.Unlinkat(fd, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
	if err = ignoreMissing(err); err == nil {
		return nil
	}
	if errors.Is(err, unix.EEXIST) {
		err = unix.ENOTEMPTY
	}
	return &os.PathError{Op: "remove", Path: filepath.Join(dir.Name(), name), Err: err}
}

// emptyOnce reads up to a batch of dir's entries and removes them; directories
// with contents are emptied into top. It reports whether there was any entry.
func emptyOnce(dir, top *os.File) (more bool, err error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	names, err := dir.Readdirnames(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	for _, name := range names {
		err := removeEntry(dir, name)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = flatten(dir, name, top)
		}
		if err != nil {
			return false, err
		}
	}
	return len(names) > 0, nil
}

// flatten empties the directory dir/name: files go, directories with contents
// move up into top, to be met there later.
func flatten(dir *os.File, name string, top *os.File) error {
	if dir != top { // one level below top: move it up instead
		err := unix.Renameat(int(dir.Fd()), name, int(top.Fd()), rand.Text())
		return ignoreMissing(err)
	}
	child, err := openDirAt(dir, name)
	if err != nil {
		return ignoreMissing(err)
	}
	defer child.Close() //nolint:errcheck // a directory, read only
	for {
		more, err := emptyOnce(child, top)
		if err != nil {
			return err
		}
		if !more {
			return removeEntry(dir, name)
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
