package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/password"
)

// An importedUser is one line of an import.
type importedUser struct {
	Name   string   `json:"name"`
	Hash   string   `json:"hash"`
	Role   string   `json:"role"`
	Groups []string `json:"groups"`
}

// maxImportLine bounds a line of an import.
const maxImportLine = 16 << 10

// parseImportLine reads one line: a JSON object, or htpasswd's "name:hash". The
// error never repeats the hash.
func parseImportLine(line string) (importedUser, error) {
	var u importedUser
	if strings.HasPrefix(line, "{") {
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&u); err != nil {
			return u, errors.New("not a JSON object with name, hash, role and groups")
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return u, errors.New("more than one JSON object on the line")
		}
	} else {
		name, hash, ok := strings.Cut(line, ":")
		if !ok {
			return u, errors.New("neither a JSON object nor name:hash")
		}
		u.Name, u.Hash = name, hash
	}
	if u.Name == "" || u.Hash == "" {
		return u, errors.New("name or hash is missing")
	}
	if _, err := password.Parse(u.Hash); err != nil {
		return u, err
	}
	return u, nil
}

// readImport reads all lines before anything is sent: either all of them can
// be understood or nothing is imported.
func readImport(in io.Reader, from string) ([]importedUser, error) {
	var all []importedUser
	var problems []string
	seen := map[string]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 4096), maxImportLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(string(bytes.TrimPrefix(lines.Bytes(), []byte("\xef\xbb\xbf"))))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		u, err := parseImportLine(line)
		if err == nil && seen[u.Name] != 0 {
			err = fmt.Errorf("the name of line %d once more", seen[u.Name])
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %v", from, n, err))
			continue
		}
		seen[u.Name] = n
		all = append(all, u)
	}
	if err := lines.Err(); err != nil {
		problems = append(problems, fmt.Sprintf("%s: %v", from, err))
	}
	if len(problems) > 0 {
		const most = 20
		if len(problems) > most {
			problems = append(problems[:most], fmt.Sprintf("and %d more", len(problems)-most))
		}
		return nil, usage("nothing was imported; correct these lines", "%s", clean(strings.Join(problems, "; ")))
	}
	if len(all) == 0 {
		return nil, usage("one line per account: a JSON object with name, hash, role and groups, or name:hash", "%s names no account", from)
	}
	return all, nil
}

func userImport(s *streams) *cobra.Command {
	var role, groups string
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Make accounts with password hashes of other programs", Args: cobra.ExactArgs(1),
		Long: "Reads one account per line: a JSON object {\"name\", \"hash\", \"role\", \"groups\"}, or name:hash as htpasswd writes it.\n" +
			"Hashes can be argon2id, argon2i, bcrypt, scrypt, and Jupyter's argon2:, sha1: and sha256:. They are checked as they are and made anew when their owners sign in.\n" +
			"All lines are read before anything is done. An account that exists already is left as it is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			in := s.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return &failure{code: exitUsage, msg: "read the file of accounts", err: err}
				}
				defer f.Close() //nolint:errcheck // only read
				in = f
			}
			users, err := readImport(in, args[0])
			if err != nil {
				return err
			}
			r, err := connect()
			if err != nil {
				return err
			}
			made, left, fast := 0, 0, 0
			for _, u := range users {
				if u.Role == "" {
					u.Role = role
				}
				if u.Groups == nil && groups != "" {
					u.Groups = strings.FieldsFunc(groups, func(r rune) bool { return r == ',' || r == ' ' })
				}
				rl := client.CreateUserInputBodyRole(u.Role)
				body := client.CreateUserInputBody{Name: u.Name, PasswordHash: &u.Hash, Role: &rl}
				if len(u.Groups) > 0 {
					body.Groups = &u.Groups
				}
				a, err := r.api.CreateUserWithResponse(cmd.Context(), body)
				switch {
				case err != nil:
					return unreachable(err)
				case problemCode(a.Body) == "conflict" && a.JSON201 == nil:
					left++
					fmt.Fprintf(s.err, "%s: there already, left as it is\n", clean(u.Name))
					continue
				case a.JSON201 == nil:
					fmt.Fprintf(s.err, "Made %d of %d accounts; stopped at %s.\n", made, len(users), clean(u.Name))
					return refusal(a.StatusCode(), a.Body)
				}
				made++
				if h, err := password.Parse(u.Hash); err == nil && h.Fast() {
					fast++
				}
				fmt.Fprintln(s.out, u.Name)
			}
			fmt.Fprintf(s.err, "Made %d accounts, left %d.\n", made, left)
			if fast > 0 {
				fmt.Fprintf(s.err, "%d of them have a hash that is guessed quickly if it is stolen (sha1, sha256), until they sign in.\n", fast)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&role, "role", "user", "role of those whose line has none")
	cmd.Flags().StringVar(&groups, "groups", "", "groups of those whose line has none, separated by commas")
	return cmd
}
