package pack_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/baileyhq/bailey/internal/inspect/pack"
)

func TestValidators(t *testing.T) {
	for _, tt := range []struct {
		validator, text string
		want            bool
	}{
		{"luhn", "79927398713", true}, // the worked example of ISO/IEC 7812-1, annex B
		{"luhn", "79927398710", false},
		{"luhn", "7992 7398-713", true},
		{"luhn", "0000000000000", false},
		{"luhn", "x", false},

		{"gb11643", "11010519491231002X", true},   // bailey:allow the example of GB 11643 itself
		{"gb11643", "11010519491231002x", true},   // bailey:allow
		{"gb11643", "110105 19491231 002X", true}, // bailey:allow
		{"gb11643", "110105194912310021", false},  // check digit
		{"gb11643", "110105194913310020", false},  // month 13
		{"gb11643", "990105194912310020", false},  // no province
		{"gb11643", "11010519490230002X", false},  // 30 February
		{"gb11643", "11010519491231002", false},
		{"gb11643-15", "110105491231002", true},
		{"gb11643-15", "110105491331002", false},

		{"uscc", "91350100M000100Y43", true},         // bailey:allow the example of GB 32100
		{"uscc-letters", "91350100M000100Y43", true}, // bailey:allow
		{"uscc", "91350100M000100Y44", false},
		{"uscc", "00350100M000100Y43", false},
		{"uscc", "91350100I000100Y43", false}, // no letter I

		{"iban", "GB82WEST12345698765432", true},      // bailey:allow the registry's example
		{"iban", "GB82 WEST 1234 5698 7654 32", true}, // bailey:allow
		{"iban", "GB82WEST12345698765433", false},
		{"iban", "XX82WEST12345698765432", false},
		{"iban", "GB82WEST1234569876543", false},

		{"card", "4111111111111111", true},    // bailey:allow the networks' test numbers
		{"card", "4111 1111 1111 1111", true}, // bailey:allow
		{"card", "4111 1111 11111 111", false},
		{"card", "4111 1111-1111 1111", false},
		{"card", "4111111111111112", false},
		{"card", "9111111111111111", false},
		{"card", "378282246310005", false},          // needs grouping or a word beside it // bailey:allow
		{"card-any", "378282246310005", true},       // bailey:allow
		{"card-grouped", "378282246310005", false},  // bailey:allow
		{"card-grouped", "3782 822463 10005", true}, // bailey:allow
		{"unionpay", "6222020200011223340", true},   // bailey:allow
		{"unionpay", "4111111111111111", false},     // bailey:allow

		{"cn-mobile", "13812345678", true},       // bailey:allow
		{"cn-mobile", "+86 138-1234-5678", true}, // bailey:allow
		{"cn-mobile", "008613812345678", true},   // bailey:allow
		{"cn-mobile", "15412345678", false},      // no such block
		{"cn-mobile", "15843721216", false},      // the memory of a graphics card
		{"cn-mobile", "+8615843721216", true},    // bailey:allow
		{"cn-mobile", "1381234567", false},

		{"jwt", "eyJhbGciOiJIUzI1NiJ9.e30.x", true},
		{"jwt", "eyJ0eXAiOiJKV1QifQ.e30.x", false}, // no algorithm
		{"jwt", "eyJhbGciOiJIUzI1NiJ9.e30", false},
		{"base64-json", "eyJhIjoxfQ==", true},
		{"base64-json", "eyJhIjoxfQ", true},
		{"base64-json", "aGVsbG8gd29ybGQ=", false},
		{"basic-auth", "YWxhZGRpbjpvcGVuc2VzYW1l", true}, // bailey:allow the example of RFC 7617
		{"basic-auth", "authentication", false},

		{"ipv4", "10.1.2.3", true},
		{"ipv4", "172.16.0.1", true},
		{"ipv4", "172.32.0.1", false},
		{"ipv4", "100.64.0.1", true},
		{"ipv4", "10.1.2.300", false},
		{"ipv4", "10.01.2.3", false},
		{"ipv6", "fd12::1", true},
		{"ipv6", "fe80::1", true},
		{"ipv6", "2001:db8::1", false},

		{"password", "Tr0ub4dor&3", true},
		{"password", "correcthorse", false},
		{"mixed", "abc1", true},
		{"mixed", "abcd", false},
		{"spread", "hf_xaBc", true},
		{"random", "Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB", true},
		{"random", "0afae57f3ccfd9d7f5767067bc48b30f", true},
		{"random", "c6b8hTg4EeGb2gQMztV1/g==", true},
		{"random", "delivery_s3_key_prefix", false},
		{"random", "_win32typing.PyIID", false},
		{"random", "x25519.X25519PrivateKey", false},
		{"random", "MySecret1-a1b2c3", false},
		{"random", "Ed25519PrivateKey", false},
		{"random", "AutoModelForCausalLM2", false},
		{"spread", "hf_xabcd", false},
		{"spread", "hf_xABCD", false},
		{"spread", "hf_xabc1", true},
		{"us-ssn", "219-09-9999", true}, // bailey:allow
		{"us-ssn", "666-09-9999", false},
		{"us-ssn", "219-00-9999", false},
	} {
		check, ok := pack.Validator(tt.validator)
		if !ok {
			t.Errorf("there is no validator %q", tt.validator)
			continue
		}
		if got := check([]byte(tt.text)); got != tt.want {
			t.Errorf("%s(%q) = %v, want %v", tt.validator, tt.text, got, tt.want)
		}
	}
	if _, ok := pack.Validator("nonsense"); ok {
		t.Error("Validator knows nonsense")
	}
}

func TestBoundaries(t *testing.T) {
	for _, tt := range []struct {
		boundary, text, match string
		want                  bool
	}{
		{"token", "x=AB,", "AB", true},
		{"token", "xAB", "AB", false},
		{"token", "AB1", "AB", false},
		{"token", `\nAB\n`, "AB", true},
		{"token", "_AB_", "AB", true},
		{"word", "_AB", "AB", false},
		{"number", "电话138，", "138", true},
		{"number", "0.138", "138", false},
		{"number", "138.", "138", true},
		{"number", "138.5", "138", false},
		{"number", "1,138,000", "138", false},
		{"number", "a,138,b", "138", true},
		{"number", "7,13812,8", "13812", true},
		{"number", "2024-138", "138", false},
		{"number", "-138", "138", false},
		{"number", "电话-138", "138", true},
		{"number", "a/138/b", "138", false},
		{"number", "#138", "138", false},
		{"number", "1e+138", "138", false},
		{"number", "138*x", "138", false},
		{"number", "138. * x", "138", false},
		{"number", "f(138)", "138", false},
		{"number", "电话(138)", "138", true},
		{"number", "x = -138", "138", false},
		{"number", "tel +138", "138", false},
		{"number", "2 ** 138", "138", false},
		{"number", "(138., 2.)", "138", false},
		{"number", "f() == 138", "138", false},
		{"phone", "mem: 13812345678", "13812345678", false},
		{"phone", "size\n13812345678", "13812345678", true}, // bailey:allow // bailey:allow
		{"phone", "13812345678 bytes", "13812345678", false},
		{"phone", "tel 13812345678", "13812345678", true}, // bailey:allow
		{"address", "10.1.2.3:80", "10.1.2.3", true},
		{"address", "10.1.2.3.", "10.1.2.3", true},
		{"address", "10.1.2.3.4", "10.1.2.3", false},
		{"address", "v-10.1.2.3", "10.1.2.3", false},
	} {
		look, ok := pack.Boundary(tt.boundary)
		if !ok {
			t.Fatalf("there is no boundary %q", tt.boundary)
		}
		at := bytes.Index([]byte(tt.text), []byte(tt.match))
		if got := look([]byte(tt.text), at, at+len(tt.match)); got != tt.want {
			t.Errorf("%s around %q in %q = %v, want %v", tt.boundary, tt.match, tt.text, got, tt.want)
		}
	}
}

// slowLuhn is the definition, from right to left, digit by digit.
func slowLuhn(b []byte) bool {
	sum, n, same := 0, 0, true
	var first byte
	for _, c := range slices.Backward(b) {
		if c == ' ' || c == '-' {
			continue
		}
		if c < '0' || c > '9' {
			return false
		}
		if n == 0 {
			first = c
		}
		same = same && c == first
		d := int(c - '0')
		if n%2 == 1 {
			d = d*2/10 + d*2%10
		}
		sum += d
		n++
	}
	return n >= 2 && n <= 40 && !same && sum%10 == 0
}

// FuzzValidators: no check panics, none changes what it looks at, one digit
// changed breaks a check digit, and Luhn is what the standard says.
func FuzzValidators(f *testing.F) {
	for _, seed := range []string{
		"11010519491231002X", "4111 1111 1111 1111", "91350100M000100Y43", "GB82WEST12345698765432", // bailey:allow
		"+86 138-1234-5678", "eyJhbGciOiJIUzI1NiJ9.e30.x", "fe80::1", "10.1.2.3", "", "-", "\xff\xfe", "٣٤٥", "6-2 2", "00:11", // bailey:allow
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		for _, name := range pack.Validators() {
			check, _ := pack.Validator(name)
			check(text)
			if !bytes.Equal(text, before) {
				t.Fatalf("%s changed %q", name, before)
			}
		}
		if got, want := pack.Luhn(text), slowLuhn(text); got != want {
			t.Errorf("Luhn(%q) = %v, want %v", text, got, want)
		}
		for i, c := range text {
			if c < '0' || c > '9' {
				continue
			}
			other := bytes.Clone(text)
			other[i] = '0' + (c-'0'+1)%10
			for name, check := range map[string]func([]byte) bool{"gb11643": pack.ResidentID, "luhn": pack.Luhn, "iban": pack.IBAN, "uscc": pack.SocialCredit} {
				if check(text) && check(other) {
					t.Errorf("%s accepts both %q and %q, which differ in one digit", name, text, other)
				}
			}
		}
	})
}

// FuzzBoundaries: no look panics, wherever the match stands.
func FuzzBoundaries(f *testing.F) {
	f.Add([]byte("x 13812345678 y"), uint8(2), uint8(11)) // bailey:allow
	f.Add([]byte("1,1,1"), uint8(2), uint8(1))
	f.Add([]byte("."), uint8(0), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, start, length uint8) {
		from := min(int(start), len(text))
		to := min(from+int(length), len(text))
		for _, name := range []string{"token", "word", "number", "phone", "address"} {
			look, _ := pack.Boundary(name)
			near := bytes.Clone(text[max(0, from-pack.Look):min(len(text), to+pack.Look)])
			if a, b := look(text, from, to), look(near, from-max(0, from-pack.Look), to-max(0, from-pack.Look)); a != b {
				t.Errorf("%s looks further than %d bytes around %d:%d of %q", name, pack.Look, from, to, text)
			}
		}
	})
}

func ExampleValidator() {
	check, _ := pack.Validator("luhn")
	fmt.Println(check([]byte("79927398713")))
	// Output: true
}
