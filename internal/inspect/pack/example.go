package pack

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
)

// exampleJWT returns a token whose signature is random letters.
func exampleJWT(rng *rand.Rand) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(`{"sub":"1234567890","name":"example","iat":1516239022}`)) + "." + letters(rng, alphabets["url"], 43)
}

// withCheck returns digits with the check digits of a format: at the end, or,
// for an IBAN, behind the country.
func withCheck(format, digits string) (string, error) {
	switch format {
	case "luhn":
		for c := '0'; c <= '9'; c++ {
			if s := digits + string(c); Luhn([]byte(s)) {
				return s, nil
			}
		}
	case "gb11643":
		if len(digits) == 17 && allDigits([]byte(digits)) {
			return digits + string(gb11643([]byte(digits))), nil
		}
	case "uscc":
		if c, ok := usccCheck([]byte(digits)); ok && len(digits) == 17 {
			return digits + string(c), nil
		}
	case "iban":
		for n := 2; n < 99 && len(digits) > 2; n++ {
			if s := fmt.Sprintf("%s%02d%s", digits[:2], n, digits[2:]); IBAN([]byte(s)) {
				return s, nil
			}
		}
	}
	return "", fmt.Errorf("no check digits make %q a %s", digits, format)
}
