package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

var (
	newest = time.Date(2026, 11, 4, 22, 12, 34, 0, time.UTC)
	old    = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
)

// A file is one entry of a test's tar.
type file struct {
	tar.Header
	body string
}

func dir(name string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: old}}
}

func reg(name, body string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: old, Size: int64(len(body))}, body: body}
}

func link(name, target string, kind byte) file {
	return file{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o644, ModTime: old}}
}

// rootfs is a small root file system that has one of everything a layer may hold.
func rootfs() []file {
	return []file{
		dir("./"), dir("./etc/"), dir("./usr/"), dir("./usr/bin/"),
		reg("./etc/motd", "welcome\n"),
		reg("./usr/bin/python3", "ELF"),
		link("./usr/bin/python", "python3", tar.TypeSymlink),
		link("./usr/bin/a-second-name", "./usr/bin/python3", tar.TypeLink),
	}
}

func writeRootfs(t *testing.T, files []file) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rootfs.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(f)
	for _, file := range files {
		if err := tw.WriteHeader(&file.Header); err != nil {
			t.Fatalf("write %s: %v", file.Name, err)
		}
		if _, err := io.WriteString(tw, file.body); err != nil {
			t.Fatalf("write %s: %v", file.Name, err)
		}
	}
	if err := errors.Join(tw.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func recipe() *Recipe {
	return &Recipe{
		Title: "test", Description: "an image for tests",
		User: "20000:20000", Workdir: "/workspace",
		Env: []string{"PATH=/usr/bin", "LANG=C.UTF-8"}, Cmd: []string{"jupyter", "lab"},
	}
}

func build(t *testing.T, files []file, change func(*BuildConfig)) (*Result, string, error) {
	t.Helper()
	cfg := BuildConfig{
		Name: "test", Rootfs: writeRootfs(t, files), Recipe: recipe(), Created: newest,
		Version: "1", PackagesSHA256: "ab", Architecture: "amd64",
		Layout: filepath.Join(t.TempDir(), "layout"),
	}
	if change != nil {
		change(&cfg)
	}
	result, err := Build(cfg)
	return result, cfg.Layout, err
}

func mustBuild(t *testing.T, files []file, change func(*BuildConfig)) (*Result, string) {
	t.Helper()
	result, layout, err := build(t, files, change)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return result, layout
}

// What does not make another file system does not make another image.
func TestEqualInputEqualImage(t *testing.T) {
	want, _ := mustBuild(t, rootfs(), nil)

	backwards := rootfs()
	slices.Reverse(backwards)
	// A hard link cannot come before its file: here the other name is the file.
	for i := range backwards {
		switch backwards[i].Name {
		case "./usr/bin/a-second-name":
			backwards[i] = link("./usr/bin/python3", "./usr/bin/a-second-name", tar.TypeLink)
		case "./usr/bin/python3":
			backwards[i] = reg("./usr/bin/a-second-name", "ELF")
		}
	}
	slices.SortStableFunc(backwards, func(a, b file) int {
		return int(a.Typeflag&1) - int(b.Typeflag&1)
	})

	named := rootfs()
	for i := range named {
		named[i].Uname, named[i].Gname = "root", "wheel"
		named[i].Format = tar.FormatPAX
		named[i].AccessTime, named[i].ChangeTime = newest, newest
		named[i].PAXRecords = map[string]string{"SCHILY.xattr.user.comment": "x"}
	}

	plain := rootfs()[1:]
	for i := range plain {
		plain[i].Name = strings.TrimPrefix(plain[i].Name, "./")
	}

	tests := []struct {
		name  string
		files []file
	}{
		{"again", rootfs()},
		{"in another order", backwards},
		{"with owners' names, more times and attributes", named},
		{"without dots and without the root", plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := mustBuild(t, tt.files, nil)
			if *got != *want {
				t.Errorf("Build = %+v, want %+v", *got, *want)
			}
		})
	}
}

func TestOtherInputOtherImage(t *testing.T) {
	want, _ := mustBuild(t, rootfs(), nil)
	tests := []struct {
		name   string
		files  func([]file)
		change func(*BuildConfig)
	}{
		{name: "contents", files: func(f []file) { f[4].body = "Welcome\n" }},
		{name: "mode", files: func(f []file) { f[4].Mode = 0o600 }},
		{name: "owner", files: func(f []file) { f[4].Uid = 20000 }},
		{name: "time", files: func(f []file) { f[4].ModTime = old.Add(time.Second) }},
		{name: "name", files: func(f []file) { f[4].Name = "./etc/modt" }},
		{name: "link", files: func(f []file) { f[6].Linkname = "python4" }},
		{name: "user", change: func(c *BuildConfig) { c.Recipe.User = "20001" }},
		{name: "env", change: func(c *BuildConfig) { c.Recipe.Env = nil }},
		{name: "command", change: func(c *BuildConfig) { c.Recipe.Cmd = []string{"sh"} }},
		{name: "version", change: func(c *BuildConfig) { c.Version = "2" }},
		{name: "packages", change: func(c *BuildConfig) { c.PackagesSHA256 = "cd" }},
		{name: "architecture", change: func(c *BuildConfig) { c.Architecture = "arm64" }},
		{name: "date", change: func(c *BuildConfig) { c.Created = newest.Add(time.Hour) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := rootfs()
			if tt.files != nil {
				tt.files(files)
			}
			got, _ := mustBuild(t, files, tt.change)
			if got.ImageID == want.ImageID || got.ManifestDigest == want.ManifestDigest {
				t.Errorf("another %s gives the same image %s", tt.name, got.ImageID)
			}
		})
	}
}

func TestNoFileIsNewerThanTheImage(t *testing.T) {
	files := rootfs()
	files[4].ModTime = newest.Add(time.Hour)
	first, layout := mustBuild(t, files, nil)
	files[4].ModTime = newest.Add(2 * time.Hour)
	second, _ := mustBuild(t, files, nil)
	if first.ImageID != second.ImageID {
		t.Errorf("two dates after the image's own give %s and %s, want one image", first.ImageID, second.ImageID)
	}
	if got := list(t, layout); !strings.Contains(got, newest.Format(time.RFC3339)) {
		t.Errorf("List = %s\nwant a file of %s", got, newest)
	}
}

func TestHostileTarIsRefused(t *testing.T) {
	setuid := reg("./usr/bin/su", "ELF")
	setuid.Mode = 0o4755
	capable := reg("./usr/bin/ping", "ELF")
	capable.Format = tar.FormatPAX
	capable.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"}
	device := file{Header: tar.Header{Typeflag: tar.TypeChar, Name: "./etc/mem", Devmajor: 1, Devminor: 1, Mode: 0o666}}
	fifo := file{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "./etc/fifo", Mode: 0o666}}

	tests := []struct {
		name string
		add  []file
	}{
		{"climbs out", []file{reg("../etc/passwd", "root::0:0")}},
		{"climbs out in the middle", []file{reg("./etc/../../passwd", "root::0:0")}},
		{"absolute", []file{reg("/etc/passwd", "root::0:0")}},
		{"hard link out", []file{link("./etc/shadow", "../../etc/shadow", tar.TypeLink)}},
		{"hard link to nothing", []file{link("./etc/shadow", "./etc/none", tar.TypeLink)}},
		{"hard link to a directory", []file{link("./etc/dir", "./usr", tar.TypeLink)}},
		{"below a symbolic link", []file{link("./lib", "/", tar.TypeSymlink), reg("./lib/passwd", "root::0:0")}},
		{"below a file", []file{reg("./etc/motd/x", "")}},
		{"below nothing", []file{reg("./none/x", "")}},
		{"twice", []file{reg("./etc/motd", "other")}},
		{"twice, spelt otherwise", []file{reg("./etc/./motd", "other")}},
		{"whiteout", []file{reg("./etc/.wh.passwd", "")}},
		{"set-user-ID", []file{setuid}},
		{"file capabilities", []file{capable}},
		{"device", []file{device}},
		{"named pipe", []file{fifo}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result, _, err := build(t, append(rootfs(), tt.add...), nil)
			if !errors.Is(err, ErrHostile) {
				t.Errorf("Build = %v, %v, want ErrHostile", result, err)
			}
		})
	}
}

func TestRecipeThatNoImageOfOursMayHave(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Recipe)
	}{
		{"no user", func(r *Recipe) { r.User = "" }},
		{"root", func(r *Recipe) { r.User = "0" }},
		{"root's group", func(r *Recipe) { r.User = "20000:0" }},
		{"user by name", func(r *Recipe) { r.User = "jovyan" }},
		{"relative workdir", func(r *Recipe) { r.Workdir = "workspace" }},
		{"token", func(r *Recipe) { r.Env = []string{"HF_TOKEN=x"} }},
		{"key", func(r *Recipe) { r.Env = []string{"AWS_SECRET_ACCESS_KEY=x"} }},
		{"env without value", func(r *Recipe) { r.Env = []string{"PATH"} }},
		{"label of ours", func(r *Recipe) { r.Labels = map[string]string{"dev.bailey.image": "other"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result, _, err := build(t, rootfs(), func(c *BuildConfig) { tt.change(c.Recipe) })
			if err == nil {
				t.Errorf("Build = %+v, want an error", result)
			}
		})
	}
}

func TestUnknownFieldOfARecipeIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.json")
	if err := os.WriteFile(name, []byte(`{"user":"20000","workdir":"/w","entrypoint":["sh"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := readRecipe(name); err == nil {
		t.Errorf("readRecipe = %+v, want an error", r)
	}
}

// The archive for docker load has the image whose ID build printed.
func TestSaveKeepsTheImageID(t *testing.T) {
	result, layout := mustBuild(t, rootfs(), nil)
	archive := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Save(layout, "bailey/test:1", f), f.Close()); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != result.ImageID {
		t.Errorf("the archive's image is %s, want %s", got, result.ImageID)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"dev.bailey.image":                 "test",
		"dev.bailey.packages":              "sha256:ab",
		"org.opencontainers.image.title":   "test",
		"org.opencontainers.image.version": "1",
		"org.opencontainers.image.created": "2026-11-04T22:12:34Z",
	} {
		if got := config.Config.Labels[key]; got != want {
			t.Errorf("label %s = %q, want %q", key, got, want)
		}
	}
	if config.Config.User != "20000:20000" || config.Config.WorkingDir != "/workspace" {
		t.Errorf("user %q in %q, want 20000:20000 in /workspace", config.Config.User, config.Config.WorkingDir)
	}
	if err := Save(layout, "not a tag", io.Discard); err == nil {
		t.Error("Save with a bad tag succeeded")
	}
}

func TestCommands(t *testing.T) {
	tmp := t.TempDir()
	config, layout := filepath.Join(tmp, "image.json"), filepath.Join(tmp, "layout")
	raw, err := json.Marshal(recipe())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"build", "-name", "test", "-rootfs", writeRootfs(t, rootfs()), "-config", config,
		"-created", "1793830354", "-version", "1", "-packages-sha256", "ab", "-arch", "amd64", "-layout", layout,
	}
	var out bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatalf("run %q: %v", args, err)
	}
	var got Result
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("build printed %q: %v", out.String(), err)
	}
	if want, _ := mustBuild(t, rootfs(), nil); got != *want {
		t.Errorf("build printed %+v, want %+v", got, *want)
	}
	if err := run(args, io.Discard); err == nil {
		t.Error("build over a layout that is there succeeded")
	}
	if got := list(t, layout); !strings.Contains(got, `"etc/motd"`) || strings.Count(got, "\n") != len(rootfs())-1 {
		t.Errorf("List = %s\nwant a line for each file but the root", got)
	}
	for _, args := range [][]string{nil, {"load"}, {"build"}, {"save"}, {"list"}, {"build", "-no-such-flag"}, {"save", "-layout", layout, "-tag", "a:b", "more"}} {
		if err := run(args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("run %q = %v, want errUsage", args, err)
		}
	}
}

func list(t *testing.T, layout string) string {
	t.Helper()
	var out bytes.Buffer
	if err := List(layout, &out); err != nil {
		t.Fatalf("List: %v", err)
	}
	return out.String()
}

// FuzzReadIndex: whatever the tar, no name that leaves the root comes through.
func FuzzReadIndex(f *testing.F) {
	for _, files := range [][]file{rootfs(), {reg("../x", "y")}, {dir("a/"), link("a/b", "../..", tar.TypeSymlink)}} {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, file := range files {
			_ = tw.WriteHeader(&file.Header)
			_, _ = io.WriteString(tw, file.body)
		}
		_ = tw.Close()
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		name := filepath.Join(t.TempDir(), "rootfs.tar")
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		entries, err := readIndex(in, newest)
		if err != nil {
			return
		}
		for _, e := range entries {
			if h := e.header; !filepath.IsLocal(h.Name) || h.Mode&0o6000 != 0 || h.ModTime.After(newest) {
				t.Errorf("readIndex let %+v through", h)
			}
		}
		_ = writeTar(io.Discard, in, entries)
	})
}
