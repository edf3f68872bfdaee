package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// EnsureVolume implements [engine.Engine]. The directory appears under its name
// only when it has its owner, so a crash in between leaves no volume that
// belongs to root.
func (e *Engine) EnsureVolume(ctx context.Context, volumeID string, uid int) error {
	if err := errors.Join(engine.CheckID("volume", volumeID), engine.CheckUID(uid), ctx.Err()); err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	st, err := statAt(e.volumes, volumeID)
	if errors.Is(err, unix.ENOENT) {
		if err = e.makeVolume(volumeID, uid); err == nil {
			return nil
		}
		if errors.Is(err, unix.EEXIST) { // somebody else was faster
			st, err = statAt(e.volumes, volumeID)
		}
	}
	if err != nil {
		return fmt.Errorf("make volume %s: %w", volumeID, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid {
		return &bailey.Error{
			Kind:  bailey.Conflict,
			Msg:   fmt.Sprintf("volume %s does not belong to this user", volumeID),
			Hint:  "a volume is never given to another user; an administrator must look at it",
			Cause: fmt.Errorf("%s: owner %d, mode %o, want owner %d", filepath.Join(e.volumes.Name(), volumeID), st.Uid, st.Mode, uid),
		}
	}
	dir, err := openDirAt(e.volumes, volumeID)
	if err != nil {
		return fmt.Errorf("make volume %s: %w", volumeID, err)
	}
	return errors.Join(dir.Chmod(0o700), dir.Close()) // its owner may have opened it up
}

func (e *Engine) makeVolume(volumeID string, uid int) error {
	tmp := newPrefix + volumeID + "-" + rand.Text()
	dir, err := makeDirAt(e.volumes, tmp, 0o700, uid)
	if err != nil {
		return err
	}
	fd := int(e.volumes.Fd())
	err = errors.Join(dir.Sync(), dir.Close(), unix.Renameat2(fd, tmp, fd, volumeID, unix.RENAME_NOREPLACE))
	if err != nil {
		return errors.Join(err, ignoreMissing(unix.Unlinkat(fd, tmp, unix.AT_REMOVEDIR)))
	}
	return e.volumes.Sync()
}

// RemoveVolume implements [engine.Engine]. It also finishes removals that a
// crash interrupted.
func (e *Engine) RemoveVolume(ctx context.Context, volumeID string) error {
	if err := engine.CheckID("volume", volumeID); err != nil {
		return fmt.Errorf("remove volume: %w", err)
	}
	err := removeTree(ctx, e.volumes, volumeID)
	if err == nil {
		err = sweep(ctx, e.volumes)
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", volumeID, err)
	}
	return nil
}

// sweep removes what was renamed away for removal.
func sweep(ctx context.Context, parent *os.File) error {
	dir, err := openDirAt(parent, ".")
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // a directory, read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, delPrefix) {
			err = errors.Join(err, removeTree(ctx, parent, name))
		}
	}
	return err
}
