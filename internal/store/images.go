package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
)

const imageColumns = `SELECT i.doc FROM images i `

func scanImage(row scanner) (bailey.Image, error) {
	doc, err := scanText(row)
	if err != nil {
		return bailey.Image{}, err
	}
	return fromJSON[bailey.Image](doc)
}

// Images lists the catalogue by name, the newest entry of a name first.
func (s *Store) Images(ctx context.Context) ([]bailey.Image, error) {
	all, err := list(ctx, s.reads(), scanImage, imageColumns+`ORDER BY i.name, i.added_at DESC, i.id DESC`)
	return all, fail("list images", err)
}

// Image returns the entry; NotFound when there is none.
func (s *Store) Image(ctx context.Context, id string) (bailey.Image, error) {
	img, err := one(ctx, s.reads(), scanImage, imageColumns+`WHERE i.id = ?`, id)
	return img, fail("image", found("image", err))
}

// AddImage adds an entry. ID and AddedAt are the store's. Conflict when the
// name has that digest already, or, for an approved one, has an approved one.
func (s *Store) AddImage(ctx context.Context, img bailey.Image) (bailey.Image, error) {
	if err := checkImage(img); err != nil {
		return bailey.Image{}, err
	}
	img.ID, img.AddedAt = bailey.NewID(), s.clock()
	doc, err := toJSON(img)
	if err != nil {
		return bailey.Image{}, fail("add image", err)
	}
	err = s.decide(ctx, "add image", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO images (id, name, digest, state, doc, added_at) VALUES (?, ?, ?, ?, ?, ?)`,
			img.ID, img.Name, img.Digest, string(img.State), doc, img.AddedAt)
		if isDuplicate(err) {
			return bailey.Errorf(bailey.Conflict, "image %s has that digest in the catalogue already", img.Name)
		}
		return err
	})
	return img, err
}

// ChangeImage changes an entry in one transaction: change gets it as it is and
// says what it becomes; its error undoes everything. ID, name, digest and
// AddedAt stay what they are. When it becomes approved, the entry of its name
// that was approved so far is retired with the message. NotFound when there is
// no such entry.
func (s *Store) ChangeImage(ctx context.Context, id, superseded string, change func(*bailey.Image) error) (bailey.Image, error) {
	var out bailey.Image
	err := s.decide(ctx, "change image", func(ctx context.Context, r runner) error {
		img, err := one(ctx, r, scanImage, imageColumns+`WHERE i.id = ?`, id)
		if err != nil {
			return found("image", err)
		}
		before := img
		if err := change(&img); err != nil {
			return err
		}
		img.ID, img.Name, img.Digest, img.AddedAt = before.ID, before.Name, before.Digest, before.AddedAt
		if err := checkImage(img); err != nil {
			return err
		}
		if img.State == bailey.ImageApproved {
			if err := retireApproved(ctx, r, img, superseded, s.clock()); err != nil {
				return err
			}
		}
		out = img
		return writeImage(ctx, r, img)
	})
	return out, err
}

// retireApproved makes room for img, which becomes the approved one of its name.
func retireApproved(ctx context.Context, r runner, img bailey.Image, message string, now time.Time) error {
	others, err := list(ctx, r, scanImage, imageColumns+`WHERE i.name = ? AND i.state = 'approved' AND i.id <> ?`, img.Name, img.ID)
	if err != nil {
		return err
	}
	for _, old := range others {
		old.State, old.Message, old.DecidedAt = bailey.ImageRetired, message, now
		if err := writeImage(ctx, r, old); err != nil {
			return err
		}
	}
	return nil
}

func writeImage(ctx context.Context, r runner, img bailey.Image) error {
	doc, err := toJSON(img)
	if err != nil {
		return err
	}
	_, err = r.exec(ctx, `UPDATE images SET state = ?, doc = ? WHERE id = ?`, string(img.State), doc, img.ID)
	return err
}

func checkImage(img bailey.Image) error {
	if err := bailey.CheckName("image", img.Name); err != nil {
		return err
	}
	if !bailey.IsDigest(img.Digest) || !img.State.Valid() {
		return bailey.Errorf(bailey.Invalid, "an image of the catalogue needs a digest and a state")
	}
	return nil
}

// Evidence returns what is kept about an image in a repository, with its blobs;
// NotFound when nothing is. A blob that is not what its digest says is left
// out: whoever changed the database gains nothing by it.
func (s *Store) Evidence(ctx context.Context, repository, digest string) (bailey.StoredEvidence, error) {
	e := bailey.StoredEvidence{Repository: repository, Digest: digest, Blobs: map[string][]byte{}}
	var collected int64
	scan := func(row scanner) (struct{}, error) { return struct{}{}, row.Scan(&collected, &e.Record) }
	if _, err := one(ctx, s.reads(), scan, `SELECT collected_at, record FROM evidence WHERE repository = ? AND digest = ?`, repository, digest); err != nil {
		return bailey.StoredEvidence{}, fail("evidence", found("evidence", err))
	}
	e.Collected = fromMicros(collected)
	blob := func(row scanner) (struct{}, error) {
		var name string
		var data []byte
		err := row.Scan(&name, &data)
		if err == nil && digestOf(data) == name {
			e.Blobs[name] = data
		}
		return struct{}{}, err
	}
	_, err := list(ctx, s.reads(), blob, `SELECT b.digest, b.data FROM evidence_items i JOIN evidence_blobs b ON b.digest = i.blob
		WHERE i.repository = ? AND i.digest = ?`, repository, digest)
	return e, fail("evidence", err)
}

// SaveEvidence replaces what is kept about an image in a repository. Blobs that
// no record names any more are forgotten. Invalid when a blob is not what its
// name says.
func (s *Store) SaveEvidence(ctx context.Context, e bailey.StoredEvidence) error {
	names := slices.Sorted(maps.Keys(e.Blobs)) // one order for everybody: two savers cannot wait for each other
	for _, name := range names {
		if digestOf(e.Blobs[name]) != name {
			return bailey.Errorf(bailey.Invalid, "a blob of evidence is not what its digest says")
		}
	}
	return s.decide(ctx, "save evidence", func(ctx context.Context, r runner) error {
		_, err := r.exec(ctx, `INSERT INTO evidence (repository, digest, collected_at, record) VALUES (?, ?, ?, ?)
			ON CONFLICT (repository, digest) DO UPDATE SET collected_at = excluded.collected_at, record = excluded.record`,
			e.Repository, e.Digest, e.Collected, e.Record)
		if err != nil {
			return err
		}
		if _, err := r.exec(ctx, `DELETE FROM evidence_items WHERE repository = ? AND digest = ?`, e.Repository, e.Digest); err != nil {
			return err
		}
		for _, name := range names {
			if _, err := r.exec(ctx, `INSERT INTO evidence_blobs (digest, data) VALUES (?, ?)
				ON CONFLICT (digest) DO UPDATE SET data = excluded.data`, name, e.Blobs[name]); err != nil {
				return err
			}
			if _, err := r.exec(ctx, `INSERT INTO evidence_items (repository, digest, blob) VALUES (?, ?, ?)`, e.Repository, e.Digest, name); err != nil {
				return err
			}
		}
		_, err = r.exec(ctx, `DELETE FROM evidence_blobs WHERE digest NOT IN (SELECT blob FROM evidence_items)`)
		return err
	})
}

// digestOf names a blob by its content.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// receiptJSON is how a run's receipt is stored.
func receiptJSON(r *bailey.Receipt) (string, error) {
	if r == nil {
		return "", nil
	}
	return toJSON(r)
}

func receiptOf(text string) (*bailey.Receipt, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // runs from before there were receipts have none
	}
	r, err := fromJSON[bailey.Receipt](text)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receipt of a run"), err)
	}
	return &r, nil
}
