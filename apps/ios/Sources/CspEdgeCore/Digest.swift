import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#else
    import CLibcrypto
#endif

/// SHA-256 as 64 lower-case hexadecimal digits.
public func sha256(_ bytes: some DataProtocol) -> String {
    let hasher = Sha256()
    hasher.update(Data(bytes))
    return hexadecimal(hasher.finish())
}

/// SHA-256 of a file, read in pieces.
public func sha256(fileAt url: URL) throws -> String {
    let file = try FileHandle(forReadingFrom: url)
    defer { try? file.close() }
    let hasher = Sha256()
    while let piece = try file.read(upToCount: 1 << 16), !piece.isEmpty { hasher.update(piece) }
    return hexadecimal(hasher.finish())
}

func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

/// The bytes of lower-case hexadecimal text of even length, or nil where it is something else.
func hexadecimalBytes(_ text: String) -> [UInt8]? {
    let digits = text.utf8.map {
        UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 || UInt8(ascii: "a")...UInt8(ascii: "f") ~= $0
    }
    guard digits.allSatisfy({ $0 }), digits.count.isMultiple(of: 2) else { return nil }
    let characters = Array(text)
    return stride(from: 0, to: characters.count, by: 2).compactMap {
        UInt8(String(characters[$0...($0 + 1)]), radix: 16)
    }
}

/// A running SHA-256: CryptoKit's on Apple's systems, libcrypto's elsewhere.
private final class Sha256 {
    #if canImport(CryptoKit)
        private var hash = SHA256()

        func update(_ data: Data) { hash.update(data: data) }

        func finish() -> [UInt8] { Array(hash.finalize()) }
    #else
        private let context = EVP_MD_CTX_new()

        init() {
            precondition(EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1, "libcrypto has no SHA-256")
        }

        deinit { EVP_MD_CTX_free(context) }

        func update(_ data: Data) {
            let done = data.withUnsafeBytes { EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
            precondition(done == 1, "libcrypto's SHA-256 failed")
        }

        func finish() -> [UInt8] {
            var digest = [UInt8](repeating: 0, count: 32)
            precondition(EVP_DigestFinal_ex(context, &digest, nil) == 1, "libcrypto's SHA-256 failed")
            return digest
        }
    #endif
}
