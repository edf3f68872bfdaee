package config

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// Recordings says how what happens over SSH is kept, and for how long.
type Recordings struct {
	Key   string   `yaml:"key" example:"file:/etc/bailey/recordings.key" doc:"env:NAME or file:/path of 64 hex digits (openssl rand -hex 32) that seal recordings. Empty: a key made from the state directory's own. What another key sealed cannot be read until that key is back."`
	Keep  Duration `yaml:"keep" doc:"Recordings are deleted this long after their session. 0: never. At least 1h."`
	Size  Bytes    `yaml:"size" doc:"What all recordings together may take on disk; the oldest make room. 0: no limit. At least 16MiB."`
	Max   Bytes    `yaml:"max" doc:"What one recording may take on disk. A session of a class that must be recorded ends there. At least 1MiB."`
	Exec  Bytes    `yaml:"exec" doc:"How much of the output of a command without a terminal is kept. Of a terminal it is all. 0: nothing. At most 1GiB."`
	Input Flag     `yaml:"input" doc:"Keep what people type too, passwords at prompts included."`
}

func defaultRecordings() Recordings {
	return Recordings{Keep: Duration(90 * 24 * time.Hour), Size: 20 * gib, Max: 2 * gib, Exec: mib}
}

// RecordingsKey returns the key that the file leads to; nil when it names none.
func (c *Config) RecordingsKey() ([]byte, error) {
	if c.Recordings.Key == "" {
		return nil, nil
	}
	hint := "look at recordings.key: " + c.Recordings.Key + "; make one with: openssl rand -hex 32"
	text, err := c.follow(c.Recordings.Key)
	if err != nil {
		return nil, &bailey.Error{Kind: bailey.Unavailable, Msg: "the key of recordings cannot be read", Hint: hint, Cause: err}
	}
	key, err := hex.DecodeString(strings.TrimSpace(secret.New(text).Reveal()))
	if err != nil || len(key) != 32 {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "the key of recordings is not 64 hex digits", Hint: hint}
	}
	return key, nil
}

func (d *decoder) checkRecordings() {
	r := d.cfg.Recordings
	if k := r.Key; k != "" && !strings.HasPrefix(k, "env:") && !strings.HasPrefix(k, "file:/") {
		d.wrong([]string{"recordings.key"}, "a key in the configuration is refused", "it would be copied, shown and backed up with it", d.write("recordings.key", "file:/etc/bailey/recordings.key"))
	}
	if r.Keep != 0 && r.Keep < Duration(time.Hour) {
		d.wrong([]string{"recordings.keep"}, r.Keep.String()+" is too short", "it is at least 1h; 0 means for ever", d.write("recordings.keep", "2160h"))
	}
	if r.Size != 0 && r.Size < 16*mib {
		d.wrong([]string{"recordings.size"}, r.Size.String()+" is too small", "it is at least 16MiB; 0 means no limit", d.write("recordings.size", "20GiB"))
	}
	if r.Max < mib {
		d.wrong([]string{"recordings.max"}, r.Max.String()+" is too small", "it is at least 1MiB", d.write("recordings.max", "2GiB"))
	}
	if r.Exec < 0 || r.Exec > gib {
		d.wrong([]string{"recordings.exec"}, r.Exec.String()+" is out of range", "it is at most 1GiB", d.write("recordings.exec", "1MiB"))
	}
}
