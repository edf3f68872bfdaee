package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	units "github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

func imageCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "The catalogue of images that workspaces start from",
		Long: "The catalogue of images: which digest stands behind a name, who signed it, and who approved it. A workspace starts from approved images that the image policy allows, and from nothing else.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(imageLsCommand(s), imageShowCommand(s), imageAddCommand(s), imageApproveCommand(s), imageFetchCommand(s),
		imageCountersignCommand(s), imageRetireCommand(s), imageExportCommand(s), imageImportCommand(s), imageSignCommand(s), imageLayoutCommand(s))
	return cmd
}

func imageLsCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the catalogue", Args: cobra.NoArgs}
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListImagesWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Images, head: []string{"NAME", "STATE", "SIGNER", "AGE", "SIZE", "HERE", "DIGEST", "REPOSITORY"}}
		for i := range a.JSON200.Images {
			img := &a.JSON200.Images[i]
			l.rows = append(l.rows, []string{
				img.Name, string(img.State), dash(optional(img.Signer)), age(img), size(img.SizeBytes), here(img), img.Digest, clean(img.Repository),
			})
		}
		if len(l.rows) == 0 && *format == "table" {
			fmt.Fprintln(s.err, "No image. make images builds and signs some; bailey image add NAME REFERENCE adds one of a registry.")
			return nil
		}
		return l.print(s.out, *format)
	}
	return cmd
}

// age says how old an image is: since it was built, or else since it was added.
func age(img *client.Image) string {
	at := img.AddedAt
	if img.CreatedAt != nil {
		at = *img.CreatedAt
	}
	return ago(&at)
}

func size(n *int64) string {
	if n == nil || *n == 0 {
		return "-"
	}
	return units.BytesSize(float64(*n))
}

func here(img *client.Image) string {
	switch {
	case img.FetchedPercent != nil:
		return strconv.FormatInt(*img.FetchedPercent, 10) + " %"
	case img.Here:
		return "yes"
	}
	return "no"
}

func imageShowCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show an image and why it may start, or may not", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages}
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ShowImageWithResponse(cmd.Context(), args[0])
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		if *format != "table" {
			return listing{value: a.JSON200, rows: [][]string{{a.JSON200.Name}}}.print(s.out, *format)
		}
		printImage(s.out, a.JSON200)
		return nil
	}
	return cmd
}

func printImage(w io.Writer, img *client.Image) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, clean(text))
		}
	}
	line("Image", img.Name)
	line("State", string(img.State))
	line("Repository", img.Repository)
	line("Digest", img.Digest)
	line("Signer", optional(img.Signer))
	if img.SignedAt != nil {
		line("Signed", img.SignedAt.UTC().Format(time.RFC3339))
	}
	if img.RekorIndex != nil {
		line("Rekor index", strconv.FormatInt(*img.RekorIndex, 10))
	}
	line("Size", size(img.SizeBytes))
	line("Here", here(img))
	line("Added", fmt.Sprintf("%s by %s", img.AddedAt.UTC().Format(time.DateOnly), img.AddedBy))
	line("Message", optional(img.Message))
	line("Redirect", optional(img.Redirect))
	if d := img.Decision; d != nil {
		line("Decision", string(d.Class)+": "+d.Message)
		for _, c := range d.Checks {
			mark := "ok    "
			if !c.Ok {
				mark = "FAILED"
			}
			fmt.Fprintf(w, "  %s %s: %s\n", mark, clean(c.Name), clean(c.Detail))
		}
		line("Next", optional(d.Hint))
	}
}

func imageAddCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME REFERENCE", Short: "Resolve an image once and add its digest to the catalogue",
		Long:    "Ask the registry once what a tag means, look at what is signed, and keep that digest under a name. The tag is never asked about again. Nothing starts from it before it is approved.",
		Example: "  bailey image add scipy quay.io/jupyter/scipy-notebook:2026-11-17\n  bailey image show scipy\n  bailey image approve scipy",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.AddImageWithResponse(cmd.Context(), client.AddImageInputBody{Name: args[0], Reference: args[1]})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			img := a.JSON201
			fmt.Fprintln(s.out, img.Digest)
			if img.State == "verified" {
				fmt.Fprintf(s.err, "Added %s: %s.\n  → bailey image approve %s lets workspaces start from it\n", img.Name, clean(optional(img.Words)), img.Name)
				return nil
			}
			fmt.Fprintf(s.err, "Added %s as a candidate: %s.\n  → bailey image show %s says more; bailey image countersign %s vouches for it with this server's key\n",
				img.Name, clean(optional(img.Words)), img.Name, img.Name)
			return nil
		},
	}
}

func imageApproveCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "approve NAME", Short: "Let workspaces start from an image", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.ApproveImageWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Approved %s %s: %s.\n", a.JSON200.Name, a.JSON200.Digest, clean(optional(a.JSON200.Words)))
			if !a.JSON200.Here {
				fmt.Fprintf(s.err, "  → it is not on the server yet; bailey image fetch %s brings it before somebody waits for it\n", a.JSON200.Name)
			}
			return nil
		},
	}
}

func imageCountersignCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "countersign NAME", Short: "Vouch for an image with the server's own key",
		Long: "For images that nobody signs, or nobody that the image policy knows: the server signs the digest with its own key (trust.key). Whether that counts is the policy's to say.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.CountersignImageWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Countersigned %s %s; it is %s now: %s.\n", a.JSON200.Name, a.JSON200.Digest, a.JSON200.State, clean(optional(a.JSON200.Words)))
			return nil
		},
	}
}

func imageRetireCommand(s *streams) *cobra.Command {
	var message, redirect string
	cmd := &cobra.Command{
		Use: "retire NAME", Short: "Take an image out of use", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		Example: "  bailey image retire torch-2 --message \"it has CVE-2026-0001\" --redirect torch-3",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.RetireImageWithResponse(cmd.Context(), args[0], client.RetireImageInputBody{Message: &message, Redirect: &redirect})
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Retired %s %s. Workspaces that run go on.\n", a.JSON200.Name, a.JSON200.Digest)
			return nil
		},
	}
	cmd.Flags().StringVarP(&message, "message", "m", "", "for whoever wants to launch it")
	cmd.Flags().StringVar(&redirect, "redirect", "", "name of the approved image that starts in its place")
	return cmd
}

func imageFetchCommand(s *streams) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "fetch NAME", Short: "Bring an image to the server before somebody waits for it", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.FetchImageWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON202 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			if detach || a.JSON202.Here {
				return nil
			}
			return s.awaitImage(cmd.Context(), r, a.JSON202.Id)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until it is there")
	return cmd
}

// awaitImage prints how far a fetch is until the image is there.
func (s *streams) awaitImage(ctx context.Context, r *remote, id string) error {
	told := int64(-1)
	for {
		a, err := r.api.ShowImageWithResponse(ctx, id)
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		switch img := a.JSON200; {
		case img.Here:
			fmt.Fprintf(s.err, "%s is on the server.\n", img.Name)
			return nil
		case img.FetchedPercent == nil:
			return &failure{code: exitFailure, msg: img.Name + " could not be fetched", hint: "the server's log says why"}
		case *img.FetchedPercent > told:
			told = *img.FetchedPercent
			fmt.Fprintf(s.err, "%s: %d %%\n", img.Name, told)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func imageExportCommand(s *streams) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write an image with its evidence into one file, for a server without internet",
		Long: "Write the image, the signatures about it, the image policy and the roots of trust into one archive in the server's transfer folder, and print its path. " +
			"With --output, and on the server itself, move it there.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.ExportImageWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			file := a.JSON200.File
			if output != "" {
				if err := copyFile(file, output); err != nil {
					return &failure{code: exitFailure, msg: "the archive is " + file + " on the server; copy it to " + output, hint: "run this as root on the server, or fetch the file with scp", err: err}
				}
				_ = os.Remove(file) // the copy is what was asked for
				file = output
			}
			fmt.Fprintln(s.out, file)
			return nil
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "file to move the archive to; only on the server itself")
	return cmd
}

func imageImportCommand(s *streams) *cobra.Command {
	var body client.ImportInputBody
	var name, repository, manifest, bundle, transfer string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Verify and load an image that comes as a file",
		Long: "Take an export of bailey, an OCI layout (a folder or a tar), or what docker save wrote, together with its signed manifest. The signatures are judged by this server's own policy before anything is loaded.\n\n" +
			"The file lies in the server's transfer folder (STATE/transfer); on the server itself, one that lies elsewhere is copied there first.",
		Example: "  bailey image import torch-8c41dba25b9d.tar\n  bailey image import torch.tar --manifest manifest.json --bundle torch.sigstore.json --repository registry.example/torch",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			var cleanup []string
			defer func() {
				for _, f := range cleanup {
					_ = os.RemoveAll(f) // it was a copy
				}
			}()
			bring := func(file string) (string, error) {
				if file == "" || transfer == "" {
					return filepath.Base(file), nil
				}
				to := filepath.Join(transfer, filepath.Base(file))
				if _, err := os.Lstat(to); err == nil {
					return filepath.Base(file), nil // it is there
				}
				cleanup = append(cleanup, to)
				return filepath.Base(file), copyFile(file, to)
			}
			for _, f := range []struct {
				from string
				to   **string
			}{{manifest, &body.Manifest}, {bundle, &body.Bundle}} {
				if f.from == "" {
					continue
				}
				base, err := bring(f.from)
				if err != nil {
					return &failure{code: exitFailure, msg: "copy " + f.from + " to the transfer folder", err: err}
				}
				*f.to = &base
			}
			if body.File, err = bring(args[0]); err != nil {
				return &failure{code: exitFailure, msg: "copy " + args[0] + " to the transfer folder", hint: "run this as root on the server", err: err}
			}
			if name != "" {
				body.Name = &name
			}
			if repository != "" {
				body.Repository = &repository
			}
			a, err := r.api.ImportImageWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			img := a.JSON201
			fmt.Fprintln(s.out, img.Digest)
			fmt.Fprintf(s.err, "Imported %s: %s; it is %s.\n", img.Name, clean(optional(img.Words)), img.State)
			if img.State == "verified" {
				fmt.Fprintf(s.err, "  → bailey image approve %s lets workspaces start from it\n", img.Name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what classes will call it; default: what the file says")
	cmd.Flags().StringVar(&repository, "repository", "", "where it comes from, for the policy's rules; default: what the file says")
	cmd.Flags().StringVar(&manifest, "manifest", "", "for what docker save wrote: file with the signed manifest")
	cmd.Flags().StringVar(&bundle, "bundle", "", "file with the signature, if it is not in FILE")
	cmd.Flags().StringVar(&transfer, "transfer", "/var/lib/bailey/transfer", "the server's transfer folder, on the server itself; empty: the file is there already")
	return cmd
}

// copyFile copies a file, or an OCI layout's folder, to where nothing is.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(to, os.DirFS(from))
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already", to)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	r, err := connect()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a, err := r.api.ListImagesWithResponse(cmd.Context())
	if err != nil || a.JSON200 == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, img := range a.JSON200.Images {
		names = append(names, img.Name+"\t"+string(img.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
