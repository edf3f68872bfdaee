package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/scan"
)

// The parts of SARIF 2.1.0 (OASIS) that findings need.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
		Configuration    struct {
			Level string `json:"level"`
		} `json:"defaultConfiguration"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		Physical struct {
			Artifact struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
			Region *sarifRegion `json:"region,omitempty"`
		} `json:"physicalLocation"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
)

// writeSARIF writes findings as code hosts read them.
func writeSARIF(w io.Writer, found []scan.Finding, set *inspect.Set) error {
	rules := map[string]inspect.Rule{}
	for _, r := range set.Rules() {
		rules[r.ID] = r
	}
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "bailey", Version: bailey.Version, Rules: []sarifRule{}}
	index, nth := map[string]int{}, map[string]int{}
	for _, f := range found {
		level := "error"
		if f.Mode < inspect.Mask {
			level = "note"
		}
		description := rules[f.Rule].Description
		if description == "" {
			description = f.Rule
		}
		if _, ok := index[f.Rule]; !ok {
			index[f.Rule] = len(run.Tool.Driver.Rules)
			r := sarifRule{ID: f.Rule, ShortDescription: sarifText{description}}
			r.Configuration.Level = level
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, r)
		}
		message := description
		if f.Cell > 0 || f.Part != "" {
			message += fmt.Sprintf(" (cell %d, %s)", f.Cell, f.Part)
		}
		if f.Commit != "" {
			message += " (commit " + f.Commit + ")"
		}
		// The same finding has the same print from run to run, wherever its
		// line moves: it is made of the rule, the file and the count there.
		key := f.Rule + "\x00" + f.Path + "\x00" + f.Commit
		nth[key]++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", key, nth[key]))
		res := sarifResult{
			RuleID: f.Rule, RuleIndex: index[f.Rule], Level: level, Message: sarifText{clean(message)},
			Fingerprints: map[string]string{"baileyFinding/v1": hex.EncodeToString(sum[:16])},
		}
		var loc sarifLocation
		loc.Physical.Artifact.URI = sarifURI(f.Path)
		if f.Line > 0 {
			loc.Physical.Region = &sarifRegion{f.Line, f.Column}
		}
		res.Locations = []sarifLocation{loc}
		run.Results = append(run.Results, res)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

// sarifURI returns a path as SARIF wants it: relative where it can be, with the
// characters of a URI. A member of an archive is its archive, which is the file
// that exists.
func sarifURI(path string) string {
	path, _, _ = strings.Cut(path, "!")
	path = filepath.ToSlash(filepath.Clean(path))
	u := url.URL{Path: path}
	if filepath.IsAbs(path) {
		u.Scheme = "file"
		return u.String()
	}
	return strings.TrimPrefix(u.String(), "./")
}
