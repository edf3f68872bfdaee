package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRecordings(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(text string, env ...string) (*Config, error) {
		t.Helper()
		file := filepath.Join(dir, "bailey.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(t.Context(), Source{Path: file, Env: env})
	}
	for text, want := range map[string][]byte{
		"":                                      nil,
		"recordings: {key: 'file:" + key + "'}": bytes.Repeat([]byte{0xab}, 32),
		"recordings: {key: 'env:REC_KEY'}":      bytes.Repeat([]byte{0xcd}, 32),
	} {
		c, err := load(text, "REC_KEY="+strings.Repeat("cd", 32))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got, err := c.RecordingsKey(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: key %x, %v", text, got, err)
		}
	}
	c, err := load("recordings: {key: 'env:REC_KEY'}", "REC_KEY="+strings.Repeat("cd", 31))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RecordingsKey(); err == nil || strings.Contains(err.Error(), "cdcd") {
		t.Errorf("a short key: %v", err)
	}
	for text, want := range map[string]string{
		"recordings: {key: " + strings.Repeat("ab", 32) + "}": "a key in the configuration is refused",
		"recordings: {keep: 1m}":                              "too short",
		"recordings: {size: 1KiB}":                            "too small",
		"recordings: {max: 1KiB}":                             "too small",
		"recordings: {exec: 2GiB}":                            "out of range",
		"recordings: {input: sure}":                           "neither true nor false",
		"recordings: {unknown: true}":                         "unknown",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
