// Command imagepack turns a root file system into a container image, always the
// same one: equal files, configuration and date give an equal image ID, on any
// machine and on any day.
//
//	imagepack build -name N -rootfs R.tar -config C.json -created UNIX -layout DIR
//	imagepack save  -layout DIR -tag NAME:TAG > docker-archive.tar
//	imagepack list  -layout DIR
//
// build writes an OCI layout and prints the image's digests as JSON; save writes
// the image of a layout as docker load wants it; list prints a line for every
// file in it, with a digest of the contents, to see how two images differ.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "imagepack:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: imagepack build|save|list [flags]; imagepack build -h says which")

func run(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch command, args := args[0], args[1:]; command {
	case "build":
		return runBuild(args, stdout)
	case "save":
		return runSave(args, stdout)
	case "list":
		return runList(args, stdout)
	default:
		return fmt.Errorf("no command %q: %w", command, errUsage)
	}
}

func runBuild(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("imagepack build", flag.ContinueOnError)
	var (
		name     = flags.String("name", "", "the image's name, for its labels")
		rootfs   = flags.String("rootfs", "", "tar of the root file system")
		config   = flags.String("config", "", "JSON file that says how to run it")
		created  = flags.Int64("created", -1, "date of the image, seconds since 1970; no file is newer")
		version  = flags.String("version", "", "the image's version, for its labels")
		packages = flags.String("packages-sha256", "", "digest of the package list, for its labels")
		arch     = flags.String("arch", runtime.GOARCH, "architecture")
		layout   = flags.String("layout", "", "directory to write the OCI layout to; must not exist")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w (%w)", err, errUsage)
	}
	if *name == "" || *rootfs == "" || *config == "" || *layout == "" || *created < 0 || flags.NArg() > 0 {
		return fmt.Errorf("build needs -name, -rootfs, -config, -created and -layout: %w", errUsage)
	}
	recipe, err := readRecipe(*config)
	if err != nil {
		return err
	}
	result, err := Build(BuildConfig{
		Name:           *name,
		Rootfs:         *rootfs,
		Recipe:         recipe,
		Created:        time.Unix(*created, 0).UTC(),
		Version:        *version,
		PackagesSHA256: *packages,
		Architecture:   *arch,
		Layout:         *layout,
	})
	if err != nil {
		return err
	}
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}

func runSave(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("imagepack save", flag.ContinueOnError)
	var (
		layout = flags.String("layout", "", "directory of the OCI layout")
		tag    = flags.String("tag", "", "the tag the image will have, NAME:TAG")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w (%w)", err, errUsage)
	}
	if *layout == "" || *tag == "" || flags.NArg() > 0 {
		return fmt.Errorf("save needs -layout and -tag: %w", errUsage)
	}
	return Save(*layout, *tag, stdout)
}

func runList(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("imagepack list", flag.ContinueOnError)
	layout := flags.String("layout", "", "directory of the OCI layout")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w (%w)", err, errUsage)
	}
	if *layout == "" || flags.NArg() > 0 {
		return fmt.Errorf("list needs -layout: %w", errUsage)
	}
	return List(*layout, stdout)
}
