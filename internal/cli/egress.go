package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
)

func egressCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "egress",
		Short: "What workspaces may reach, and what they asked for",
		Long: "A workspace of network mode proxied reaches the hosts that its class allows. Anything else is refused and becomes a request, " +
			"which an administrator allows once, for a day or for the class, or denies.",
	}
	cmd.AddCommand(egressRequests(s), egressAllow(s), egressDeny(s), egressGrants(s), egressRevoke(s), egressRules(s), egressTest(s))
	return cmd
}

func egressRequests(s *streams) *cobra.Command {
	var everybody bool
	var state string
	cmd := &cobra.Command{
		Use: "requests", Short: "What was refused to your workspaces, and what became of it", Args: cobra.NoArgs,
		Example: "  bailey egress requests\n  bailey egress requests --all --state open",
	}
	format := outputFlag(cmd)
	cmd.Flags().BoolVarP(&everybody, "all", "a", false, "everybody's (administrators and auditors)")
	cmd.Flags().StringVar(&state, "state", "", "only those that are open, allowed or denied")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		params := &client.ListEgressRequestsParams{All: &everybody}
		switch state {
		case "":
		case "open", "allowed", "denied":
			params.State = new(client.ListEgressRequestsParamsState(state))
		default:
			return usage("use open, allowed or denied", "%q is no state of a request", state)
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListEgressRequestsWithResponse(cmd.Context(), params)
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Requests, head: []string{"ID", "STATE", "HOST", "PORT", "CLASS", "WORKSPACE", "TRIED", "LAST", "BY"}}
		for _, q := range a.JSON200.Requests {
			l.rows = append(l.rows, []string{
				q.Id, string(q.State), clean(q.Host), strconv.FormatInt(q.Port, 10), q.Class, clean(q.User + "." + q.Workspace),
				strconv.FormatInt(q.Count, 10), ago(&q.LastAt), dash(optional(q.DecidedBy)),
			})
		}
		if len(l.rows) == 0 && *format == "table" {
			fmt.Fprintln(s.err, "Nothing was refused.")
			return nil
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func egressAllow(s *streams) *cobra.Command {
	var scope, class, user string
	var hours int
	cmd := &cobra.Command{
		Use:   "allow REQUEST | HOST[:PORT]",
		Short: "Allow what was asked for, or a host without being asked (administrators)",
		Long: "With a request's id (bailey egress requests): allow it once (its workspace, for ten minutes from the first connection), for a day (its user, in its class) or for its class.\n" +
			"With a host: allow it to everybody in --class, or to --user in that class for a day.",
		Example: "  bailey egress allow 01kb… --for once\n  bailey egress allow 01kb… --for class\n  bailey egress allow files.example.org --class ml\n  bailey egress allow files.example.org:8443 --class ml --user alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if hours < 0 {
				return usage("give the hours that it holds, 1 to 8784", "%d hours are no time", hours)
			}
			ask, err := s.allowRequest(args[0], scope, hours)
			if strings.Contains(args[0], ".") {
				ask, err = s.grantHost(args[0], class, user, hours)
			}
			if err != nil {
				return err
			}
			r, err := connect()
			if err != nil {
				return err
			}
			g, err := ask(cmd.Context(), r)
			if err != nil {
				return err
			}
			whom := "everybody in class " + g.Class
			if u := optional(g.User); u != "" {
				whom = u + " in class " + g.Class
			}
			fmt.Fprintf(s.err, "Allowed %s:%d to %s until %s. bailey egress revoke %s ends it.\n", clean(g.Host), g.Port, whom, g.ExpiresAt.Local().Format(time.DateTime), g.Id)
			fmt.Fprintln(s.out, g.Id)
			return nil
		},
	}
	cmd.Flags().StringVar(&scope, "for", "day", "of a request: once, day or class")
	cmd.Flags().StringVar(&class, "class", "", "of a host: the class")
	cmd.Flags().StringVar(&user, "user", "", "of a host: only this user, for a day")
	cmd.Flags().IntVar(&hours, "hours", 0, "how long it holds; 0: a day, for a class 90 days")
	return cmd
}

// An allowance asks the server for a grant.
type allowance func(ctx context.Context, r *remote) (*client.EgressGrant, error)

// allowRequest checks what was typed and returns the question.
func (s *streams) allowRequest(id, scope string, hours int) (allowance, error) {
	switch scope {
	case "once", "day", "class":
	default:
		return nil, usage("use --for once, day or class", "%q is no scope", scope)
	}
	body := client.EgressAllowInputBody{Scope: client.EgressAllowInputBodyScope(scope)}
	if hours > 0 {
		body.Hours = new(int64(hours))
	}
	return func(ctx context.Context, r *remote) (*client.EgressGrant, error) {
		a, err := r.api.AllowEgressRequestWithResponse(ctx, id, body)
		if err != nil {
			return nil, unreachable(err)
		}
		if a.JSON200 == nil {
			return nil, refusal(a.StatusCode(), a.Body)
		}
		return a.JSON200, nil
	}, nil
}

// grantHost is allowRequest for a host that nobody asked for.
func (s *streams) grantHost(where, class, user string, hours int) (allowance, error) {
	if class == "" {
		return nil, usage("add --class CLASS: what is allowed is allowed to a class", "%s is a host, and no class is given for it", where)
	}
	host, port, err := hostPort(where)
	if err != nil {
		return nil, err
	}
	body := client.EgressGrantInputBody{Class: class, Host: host, Port: &port}
	if user != "" {
		body.User = &user
	}
	if hours > 0 {
		body.Hours = new(int64(hours))
	}
	return func(ctx context.Context, r *remote) (*client.EgressGrant, error) {
		a, err := r.api.GrantEgressWithResponse(ctx, body)
		if err != nil {
			return nil, unreachable(err)
		}
		if a.JSON201 == nil {
			return nil, refusal(a.StatusCode(), a.Body)
		}
		return a.JSON201, nil
	}, nil
}

// hostPort reads HOST, HOST:PORT or a URL, as people copy them.
func hostPort(where string) (host string, port int64, err error) {
	text := where
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return "", 0, usage("write files.example.org or files.example.org:8443", "%q is not a host", where)
	}
	port = 443
	if u.Scheme == "http" {
		port = 80
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseInt(p, 10, 32); err != nil || port < 1 || port > 65535 {
			return "", 0, usage("ports are 1 to 65535", "%q is not a port", p)
		}
	}
	return u.Hostname(), port, nil
}

func egressDeny(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "deny REQUEST", Short: "Answer a request with no; what was granted because of it ends (administrators)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.DenyEgressRequestWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Denied %s:%d to %s in class %s.\n", clean(a.JSON200.Host), a.JSON200.Port, a.JSON200.User, a.JSON200.Class)
			return nil
		},
	}
}

func egressGrants(s *streams) *cobra.Command {
	var everybody bool
	cmd := &cobra.Command{Use: "grants", Short: "What is allowed to you beyond the rules, and until when", Args: cobra.NoArgs}
	format := outputFlag(cmd)
	cmd.Flags().BoolVarP(&everybody, "all", "a", false, "everybody's (administrators and auditors)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListEgressGrantsWithResponse(cmd.Context(), &client.ListEgressGrantsParams{All: &everybody})
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Grants, head: []string{"ID", "SCOPE", "HOST", "PORT", "CLASS", "USER", "BY", "UNTIL"}}
		for _, g := range a.JSON200.Grants {
			user := optional(g.User)
			if user == "" {
				user = "everybody"
			}
			l.rows = append(l.rows, []string{
				g.Id, string(g.Scope), clean(g.Host), strconv.FormatInt(g.Port, 10), g.Class, user, g.By, g.ExpiresAt.Local().Format(time.DateTime),
			})
		}
		if len(l.rows) == 0 && *format == "table" {
			fmt.Fprintln(s.err, "Nothing is allowed beyond the rules: bailey egress rules.")
			return nil
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func egressRevoke(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "revoke GRANT", Short: "End a grant, and the connections that it alone allowed (administrators)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.RevokeEgressGrantWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "Revoked.")
			return nil
		},
	}
}

func egressRules(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules [CLASS]", Short: "What the classes you may use can reach", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: completeClasses,
	}
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListEgressRulesWithResponse(cmd.Context())
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		classes := []client.EgressClass{}
		for _, c := range a.JSON200.Classes {
			if len(args) == 0 || c.Class == args[0] {
				classes = append(classes, c)
			}
		}
		if len(classes) == 0 && len(args) == 1 {
			return &failure{code: exitNotFound, msg: "there is no class " + clean(args[0]) + " that you may use", hint: "bailey class ls"}
		}
		l := listing{value: classes, head: []string{"CLASS", "NETWORK", "HOST", "PORTS", "LIMITS"}}
		for _, c := range classes {
			if len(c.Rules) == 0 {
				l.rows = append(l.rows, []string{c.Class, string(c.Network), "-", "-", clean(c.Reach)})
			}
			for _, rule := range c.Rules {
				l.rows = append(l.rows, []string{c.Class, string(c.Network), clean(rule.Host), numbers(rule.Ports), ruleLimits(rule)})
			}
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func numbers(list []int64) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.FormatInt(n, 10))
	}
	return strings.Join(words, ",")
}

// ruleLimits says in words what a rule does not allow.
func ruleLimits(r client.EgressRule) string {
	var words []string
	if r.Methods != nil && len(*r.Methods) > 0 {
		words = append(words, strings.Join(*r.Methods, ","))
	}
	if r.Users != nil && len(*r.Users) > 0 {
		words = append(words, "for "+strings.Join(*r.Users, ","))
	}
	if h := optional(r.Hours); h != "" {
		words = append(words, h)
	}
	if r.Bytes != nil && *r.Bytes > 0 {
		words = append(words, fmt.Sprintf("%d MiB a connection", *r.Bytes>>20))
	}
	if r.Rate != nil && *r.Rate > 0 {
		words = append(words, fmt.Sprintf("%d KiB/s", *r.Rate>>10))
	}
	return dash(strings.Join(words, ", "))
}

func egressTest(s *streams) *cobra.Command {
	var class, method string
	cmd := &cobra.Command{
		Use: "test HOST[:PORT] | URL", Short: "What would be answered to you, without connecting", Args: cobra.ExactArgs(1),
		Long:    "Exit code 0 when it is allowed, 6 when it is not.",
		Example: "  bailey egress test --class ml https://pypi.org/simple/\n  bailey egress test --class ml files.example.org:8443",
		RunE: func(cmd *cobra.Command, args []string) error {
			if class == "" {
				return usage("add --class CLASS; bailey class ls lists them", "no class is given")
			}
			host, port, err := hostPort(args[0])
			if err != nil {
				return err
			}
			r, err := connect()
			if err != nil {
				return err
			}
			body := client.EgressTestInputBody{Class: class, Host: host, Port: &port}
			if method != "" {
				body.Method = &method
			} else if strings.HasPrefix(args[0], "http://") {
				body.Method = new("GET")
			}
			a, err := r.api.TestEgressWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			if a.JSON200.Allowed {
				fmt.Fprintf(s.out, "allowed by %s\n", clean(optional(a.JSON200.Rule)))
				return nil
			}
			why := "no rule names it"
			if a.JSON200.Why != nil && *a.JSON200.Why != "no_rule" {
				lacks := map[string]string{"other_user": "is for other users", "method": "is for other methods", "port": "is for other ports", "hours": "holds at other times"}
				why = fmt.Sprintf("rule %s %s", clean(optional(a.JSON200.Rule)), lacks[string(*a.JSON200.Why)])
			}
			return &failure{
				code: exitRefused, msg: fmt.Sprintf("%s:%d is not allowed in class %s: %s", clean(host), port, class, why),
				hint: "try it in a workspace and it is asked for; or an administrator: bailey egress allow " + clean(host) + " --class " + class,
			}
		},
	}
	cmd.Flags().StringVar(&class, "class", "", "the class of the workspace")
	cmd.Flags().StringVar(&method, "method", "", "of a plain HTTP request; empty: a tunnel, which is what https is")
	return cmd
}
