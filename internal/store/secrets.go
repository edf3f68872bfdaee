package store

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

type sealedSecret struct {
	bailey.KnownSecret

	sealed string
}

func scanSecret(row scanner) (v sealedSecret, err error) {
	var bytes, created int64
	err = row.Scan(&v.Name, &v.Class, &v.Mode, &v.sealed, &bytes, &v.CreatedBy, &created)
	v.Bytes, v.CreatedAt = int(bytes), fromMicros(created)
	return v, err
}

const secretColumns = `SELECT name, class, mode, sealed, bytes, created_by, created_at FROM secrets `

// SetSecret stores the value under k.Name, in place of a former one, whose mode
// it keeps unless k has one. Bytes and CreatedAt are the store's to fill in.
// Invalid when name, class, mode or value cannot be.
func (s *Store) SetSecret(ctx context.Context, k bailey.KnownSecret, value secret.Value) (bailey.KnownSecret, error) {
	text := value.Reveal()
	if err := bailey.CheckSecretName(k.Name); err != nil {
		return bailey.KnownSecret{}, err
	}
	if k.Class != "" {
		if err := bailey.CheckName("class", k.Class); err != nil {
			return bailey.KnownSecret{}, err
		}
	}
	if k.Mode != "" && !slices.Contains(bailey.SecretModes, k.Mode) {
		return bailey.KnownSecret{}, bailey.Errorf(bailey.Invalid, "a secret's mode is one of %s", strings.Join(bailey.SecretModes, ", "))
	}
	if text == "" || len(text) > bailey.MaxSecretBytes {
		return bailey.KnownSecret{}, bailey.Errorf(bailey.Invalid, "a secret has 1 to %d bytes", bailey.MaxSecretBytes)
	}
	k.Bytes, k.CreatedAt = len(text), s.clock()
	// Values may hold any bytes, which text columns may not.
	sealed := s.sealText(base64.RawStdEncoding.EncodeToString([]byte(text)), "secret "+k.Name)
	err := s.change(ctx, "store secret", func(ctx context.Context, r runner) error {
		row, err := one(ctx, r, scanSecret, `INSERT INTO secrets (name, class, mode, sealed, bytes, created_by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET class = excluded.class, sealed = excluded.sealed, bytes = excluded.bytes,
				mode = CASE WHEN excluded.mode = '' THEN secrets.mode ELSE excluded.mode END,
				created_by = excluded.created_by, created_at = excluded.created_at
			RETURNING name, class, mode, sealed, bytes, created_by, created_at`,
			k.Name, k.Class, k.Mode, sealed, k.Bytes, k.CreatedBy, k.CreatedAt)
		if err == nil {
			k.Mode = row.Mode
		}
		return err
	})
	return k, err
}

// Secrets lists the registered secrets by name, without their values.
func (s *Store) Secrets(ctx context.Context) ([]bailey.KnownSecret, error) {
	rows, err := list(ctx, s.reads(), scanSecret, secretColumns+`ORDER BY name`)
	all := make([]bailey.KnownSecret, 0, len(rows))
	for _, row := range rows {
		all = append(all, row.KnownSecret)
	}
	return all, fail("list secrets", err)
}

// SecretValues returns every registered value by name. It fails when one does
// not open: a filter that silently knew fewer would be worse than none.
func (s *Store) SecretValues(ctx context.Context) (map[string]secret.Value, error) {
	rows, err := list(ctx, s.reads(), scanSecret, secretColumns+`ORDER BY name`)
	if err != nil {
		return nil, fail("read secrets", err)
	}
	values := make(map[string]secret.Value, len(rows))
	for _, row := range rows {
		text, err := s.openText(row.sealed, "secret "+row.Name)
		if err != nil {
			return nil, fail("read secret "+row.Name, err)
		}
		raw, err := base64.RawStdEncoding.DecodeString(text)
		if err != nil {
			return nil, fail("read secret "+row.Name, errSeal)
		}
		values[row.Name] = secret.New(string(raw))
	}
	return values, nil
}

// DeleteSecret forgets a registered secret; NotFound when there is none.
func (s *Store) DeleteSecret(ctx context.Context, name string) error {
	return s.update(ctx, "delete secret", "secret", `DELETE FROM secrets WHERE name = ?`, name)
}
