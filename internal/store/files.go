package store

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/baileyhq/bailey"
)

// MaxFileBytes is how large a sealed file may be: a certificate with its chain
// has a few thousand bytes.
const MaxFileBytes = 1 << 20

func scanFile(row scanner) (f bailey.StoredFile, err error) {
	var modified int64
	err = row.Scan(&f.Name, &f.Bytes, &modified)
	f.ModifiedAt = fromMicros(modified)
	return f, err
}

// checkFileName refuses what is not components between single slashes.
func checkFileName(name string) error {
	if name == "" || len(name) > 512 || strings.ContainsRune(name, 0) {
		return bailey.Errorf(bailey.Invalid, "the name of a stored file has 1 to 512 bytes")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return bailey.Errorf(bailey.Invalid, "the name of a stored file is components between single slashes, and none of them is a dot or two")
		}
	}
	return nil
}

// WriteFile seals content under name, in place of what was there. Invalid when
// the name cannot be one or content is larger than [MaxFileBytes].
func (s *Store) WriteFile(ctx context.Context, name string, content []byte) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	if len(content) > MaxFileBytes {
		return bailey.Errorf(bailey.Invalid, "a stored file has at most %d bytes", MaxFileBytes)
	}
	sealed := s.sealText(base64.RawStdEncoding.EncodeToString(content), "file "+name)
	return s.change(ctx, "write file", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO files (name, sealed, bytes, modified_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, bytes = excluded.bytes, modified_at = excluded.modified_at`,
			name, sealed, len(content), s.clock())
		return err
	})
}

// ReadFile returns what was written under name; NotFound when nothing was.
func (s *Store) ReadFile(ctx context.Context, name string) ([]byte, error) {
	sealed, err := one(ctx, s.reads(), scanText, `SELECT sealed FROM files WHERE name = ?`, name)
	if err != nil {
		return nil, fail("read file", found("stored file", err))
	}
	text, err := s.openText(sealed, "file "+name)
	if err != nil {
		return nil, fail("read file", err)
	}
	content, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, fail("read file", errSeal)
	}
	return content, nil
}

// Files lists the file called name, if there is one, and all files below it, by
// name and without their contents; the empty name lists all.
func (s *Store) Files(ctx context.Context, name string) ([]bailey.StoredFile, error) {
	query, args := `SELECT name, bytes, modified_at FROM files ORDER BY name`, []any(nil)
	if name != "" {
		// "0" is the byte after "/": this is every name that begins with name and a slash.
		query = `SELECT name, bytes, modified_at FROM files WHERE name = ? OR (name > ? AND name < ?) ORDER BY name`
		args = []any{name, name + "/", name + "0"}
	}
	all, err := list(ctx, s.reads(), scanFile, query, args...)
	return all, fail("list files", err)
}

// RemoveFiles removes the file called name and all files below it. It is no
// error when there are none.
func (s *Store) RemoveFiles(ctx context.Context, name string) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	return s.change(ctx, "remove files", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `DELETE FROM files WHERE name = ? OR (name > ? AND name < ?)`, name, name+"/", name+"0")
		return err
	})
}
