package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/secret"
)

func classCommand(s *streams, use string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: "The classes you may launch"}
	ls := &cobra.Command{Use: "ls", Short: "List them", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListClassesWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Classes, head: []string{"NAME", "CPUS", "MEMORY", "GPUS", "NETWORK", "IMAGE", "DIGEST"}}
		for _, c := range a.JSON200.Classes {
			digest := optional(c.Digest)
			if digest == "" {
				digest = "not on this machine"
			}
			l.rows = append(l.rows, []string{c.Name, strconv.FormatFloat(c.Cpus, 'g', -1, 64), units.BytesSize(float64(c.MemoryBytes)), strconv.FormatInt(c.Gpus, 10), networkWord(c), c.Image, digest})
		}
		return l.print(s.out, *format)
	}
	cmd.AddCommand(ls)
	return cmd
}

// networkWord says how far a class reaches. An open network stands out.
func networkWord(c client.Class) string {
	switch c.Network {
	case client.ClassNetworkBridge:
		return "BRIDGE (open)"
	case client.ClassNetworkProxied:
		return "proxied: " + optional(c.Egress)
	case client.ClassNetworkNone:
	}
	return string(c.Network)
}

func volumeCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "volume", Short: "Your volumes: the files of your workspaces"}
	ls := &cobra.Command{Use: "ls", Short: "List them", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListVolumesWithResponse(cmd.Context(), nil)
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Volumes, head: []string{"NAME", "MADE", "USED BY", "ID"}}
		for _, v := range a.JSON200.Volumes {
			l.rows = append(l.rows, []string{v.Name, v.CreatedAt.Format(time.DateOnly), dash(optional(v.InUseBy)), v.Id})
		}
		return l.print(s.out, *format)
	}
	cmd.AddCommand(ls, volumeRemove(s))
	return cmd
}

func volumeRemove(s *streams) *cobra.Command {
	var confirm string
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Delete a volume and all files in it, for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.ListVolumesWithResponse(cmd.Context(), nil)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			for _, v := range a.JSON200.Volumes {
				if v.Name != args[0] && v.Id != args[0] {
					continue
				}
				if confirm == "" {
					if err := s.confirm(false, "Delete volume "+v.Name+" and all files in it, for good?", v.Name); err != nil {
						if f, ok := errors.AsType[*failure](err); ok && f.code == exitUsage {
							f.hint = "give --confirm " + v.Name
						}
						return err
					}
					confirm = v.Name
				}
				d, err := r.api.DeleteVolumeWithResponse(cmd.Context(), v.Id, &client.DeleteVolumeParams{Confirm: confirm})
				if err != nil {
					return unreachable(err)
				}
				if d.StatusCode() != http.StatusNoContent {
					return refusal(d.StatusCode(), d.Body)
				}
				fmt.Fprintf(s.err, "Deleted volume %s.\n", v.Name)
				return nil
			}
			return &failure{code: exitNotFound, msg: "you have no volume " + clean(args[0]), hint: "bailey volume ls"}
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the volume's name, instead of being asked for it")
	return cmd
}

func adminCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "admin", Short: "Accounts, classes, bans, GPUs and orphans; for administrators"}
	user := &cobra.Command{Use: "user", Short: "Accounts"}
	user.AddCommand(userAdd(s), userList(s), userSet(s), userRemove(s), userImport(s), userFactors(s), userEnd(s), userLinks(s), userLink(s), userUnlink(s))
	cmd.AddCommand(user, groupCommand(s), signInCommand(s), adminTokenCommand(s), classCommand(s, "class"), secretCommand(s), banCommand(s), gpuCommand(s), orphanCommand(s))
	return cmd
}

func userAdd(s *streams) *cobra.Command {
	var passwordFile, role, groups, owner string
	var service bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make an account", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if !service && owner != "" {
				return usage("give --service as well", "--owner is for service accounts")
			}
			var password secret.Value
			if !service {
				if password, err = s.password(passwordFile); err != nil {
					return err
				}
			}
			rl := client.CreateUserInputBodyRole(role)
			body := client.CreateUserInputBody{Name: args[0], Role: &rl}
			if service {
				body.Service = &service
			} else {
				body.Password = new(password.Reveal())
			}
			if owner != "" {
				body.Owner = &owner
			}
			if g := strings.FieldsFunc(groups, func(r rune) bool { return r == ',' || r == ' ' }); len(g) > 0 {
				body.Groups = &g
			}
			a, err := r.api.CreateUserWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON201 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Made %s (%s, uid %d).\n", a.JSON201.Name, a.JSON201.Role, a.JSON201.Uid)
			return nil
		},
	}
	cmd.Flags().StringVar(&passwordFile, "password-file", "", `file that holds the first password ("-" for stdin); asked for when empty`)
	cmd.Flags().BoolVar(&service, "service", false, "make a service account: no password, tokens only (bailey admin token create)")
	cmd.Flags().StringVar(&owner, "owner", "", "the person who answers for a service account; empty: you")
	cmd.Flags().StringVar(&role, "role", "user", "user, auditor or admin")
	cmd.Flags().StringVar(&groups, "groups", "", "groups, separated by commas")
	return cmd
}

func userList(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "List the accounts", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListUsersWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Users, head: []string{"NAME", "ROLE", "UID", "STATE", "GROUPS"}}
		for _, u := range a.JSON200.Users {
			state := "enabled"
			if u.Disabled {
				state = "disabled"
			}
			if u.Service != nil && *u.Service {
				state += ", service"
			}
			l.rows = append(l.rows, []string{u.Name, string(u.Role), strconv.FormatInt(u.Uid, 10), state, dash(strings.Join(u.Groups, ","))})
		}
		return l.print(s.out, *format)
	}
	return ls
}

func userSet(s *streams) *cobra.Command {
	var passwordFile, role, groups string
	var disable, enable bool
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change an account: role, groups, disabled, password", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := client.UpdateUserInputBody{}
			if cmd.Flags().Changed("role") {
				rl := client.UpdateUserInputBodyRole(role)
				body.Role = &rl
			}
			if cmd.Flags().Changed("groups") {
				g := strings.FieldsFunc(groups, func(r rune) bool { return r == ',' || r == ' ' })
				if g == nil {
					g = []string{}
				}
				body.Groups = &g
			}
			if disable && enable {
				return usage("give one of them", "--disable and --enable were both given")
			}
			if disable || enable {
				body.Disabled = &disable
			}
			if passwordFile != "" {
				password, err := readSecretFile(passwordFile, s.in)
				if err != nil {
					return err
				}
				body.Password = new(password.Reveal())
			}
			if body == (client.UpdateUserInputBody{}) {
				return usage("bailey admin user set --help", "nothing to change was given")
			}
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.UpdateUserWithResponse(cmd.Context(), args[0], body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Changed %s.\n", a.JSON200.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "user, auditor or admin")
	cmd.Flags().StringVar(&groups, "groups", "", `groups, separated by commas; "" for none`)
	cmd.Flags().BoolVar(&disable, "disable", false, "end every session and token and refuse sign-in")
	cmd.Flags().BoolVar(&enable, "enable", false, "let the account sign in again")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", `file that holds a new password ("-" for stdin)`)
	return cmd
}

func userRemove(s *streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Delete an account without workspaces and volumes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "Delete the account "+args[0]+"?", args[0]); err != nil {
				return err
			}
			a, err := r.api.DeleteUserWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Deleted %s.\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func gpuCommand(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "gpus", Short: "The cards and who holds them", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListGPUsWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Gpus, head: []string{"UUID", "MODEL", "HELD BY", "SINCE"}}
		for _, g := range a.JSON200.Gpus {
			l.rows = append(l.rows, []string{g.Uuid, dash(optional(g.Model)), dash(optional(g.Workspace)), ago(g.Since)})
		}
		return l.print(s.out, *format)
	}
	return ls
}

func orphanCommand(s *streams) *cobra.Command {
	ls := &cobra.Command{Use: "orphans", Short: "Containers of this installation that no run accounts for", Args: cobra.NoArgs}
	format := outputFlag(ls)
	ls.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListOrphansWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Orphans, head: []string{"CONTAINER", "WORKSPACE", "RUNNING"}}
		for _, o := range a.JSON200.Orphans {
			l.rows = append(l.rows, []string{clean(o.Container), dash(o.Workspace), strconv.FormatBool(o.Running)})
		}
		return l.print(s.out, *format)
	}
	return ls
}
