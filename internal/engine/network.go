package engine

// A Network says how far a workspace reaches by itself.
type Network string

// The network modes. In the first two a workspace has a loopback of its own and
// no other interface, no route and no resolver: there is nothing to scan.
const (
	NetworkNone    Network = "none"
	NetworkProxied Network = "proxied" // and one socket to the server, which decides about each connection
	NetworkBridge  Network = "bridge"  // an interface on a bridge of the host: the host, and what it reaches, can be reached
)

// Valid reports whether n is a mode that exists.
func (n Network) Valid() bool {
	return n == NetworkNone || n == NetworkProxied || n == NetworkBridge
}

// proxyEnv returns what programs inside look at to find the way out. Both
// spellings are set: curl reads http_proxy in lower case only, because a CGI
// program gets HTTP_PROXY from whoever asks. ALL_PROXY names the HTTP proxy as
// well, although SOCKS5 is spoken on the same port: clients such as httpx
// refuse to start at all when they meet a SOCKS address without the package for
// it. Names that are not served at the proxy are none of its business, so
// loopback is left out.
func proxyEnv(n Network) map[string]string {
	if n != NetworkProxied {
		return nil
	}
	const (
		proxy  = "http://" + EgressAddr
		direct = "localhost,127.0.0.1,::1"
	)
	return map[string]string{
		"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": direct,
		"http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy, "no_proxy": direct,
		// pip would ask five times, each time longer, what was answered once.
		"PIP_RETRIES":                   "1",
		"PIP_DISABLE_PIP_VERSION_CHECK": "1",
		"APT_CONFIG":                    "/run/apt.conf", // written by the agent: apt for people who are not root
		// bash runs it before each prompt: what git and curl keep to themselves.
		"PROMPT_COMMAND": "[ -s " + EgressNotice + " ] && cat " + EgressNotice + " && rm -f " + EgressNotice,
		"BAILEY_NETWORK": string(n),
	}
}
